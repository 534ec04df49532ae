"""What is shipped beside the code: the configurations, which go by names, and the learned tiny model.

In a clone they lie beside ``holitom/``, in a package inside it.
"""

import difflib
import os
from pathlib import Path

from holitom.errors import InputError, shown

_HERE = Path(__file__).resolve().parent
_NO_RUNS = {"launch", "sweeps"}  # folders of configs/ that hold other things than configurations of one run


def _folder(name: str) -> Path:
    return next((folder for folder in (_HERE / name, _HERE.parent / name) if folder.is_dir()), _HERE.parent / name)


CONFIGS = _folder("configs")
TINY = _folder("checkpoints") / "tiny"


def config_names() -> list[str]:
    """Names of the shipped configurations, ``model/row``, in alphabetical order."""
    files = sorted(CONFIGS.glob("*/*.yaml"))
    return [f"{path.parent.name}/{path.stem}" for path in files if path.parent.name not in _NO_RUNS]


def config_file(path: str | os.PathLike[str]) -> Path:
    """The file of a configuration.

    Args:
        path: a file, or the name of a shipped configuration: ``llava_onevision_7b/holitom_r10``. A file goes first.

    Raises:
        InputError: if it is neither; the message says what is shipped.
    """
    try:
        if Path(path).is_file():
            return Path(path)
    except OSError:  # a name that no file system takes: what is shipped has shorter ones
        pass
    known, name = config_names(), Path(path).as_posix()
    if name in known:
        return CONFIGS / f"{name}.yaml"
    said = f"there is no configuration file {shown(os.fspath(path))}, and none is shipped by that name"
    raise InputError(f"{said}: {_hint(name, known)}")


def _hint(name: str, known: list[str]) -> str:
    """The names that ``name`` may have been meant to be: those of its model, or else the models."""
    wanted = name.removesuffix(".yaml").removeprefix("configs/")
    if wanted in known:
        return f"drop the folder and the ending, the name is {wanted}"
    model = wanted.partition("/")[0]
    rows = [other.partition("/")[2] for other in known if other.partition("/")[0] == model]
    if rows:
        return f"{model} has {', '.join(rows)}"
    models = sorted({other.partition("/")[0] for other in known})
    close = difflib.get_close_matches(wanted, known, 1) or known[:1]
    return f"names are MODEL/ROW, as {', '.join(close)}; models are {', '.join(models)}"
