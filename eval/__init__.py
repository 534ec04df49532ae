"""What the project measures. Installed, this folder is called ``holitom_eval``: everybody has an ``eval`` of theirs.

Its modules go on saying ``from eval.x import y``, which is made to come true without touching ``sys.path``:

* ``python -m holitom_eval.x``: the process is ours, and so is the name;
* ``import holitom_eval``, as lmms-eval does at every start to see our models: only where nobody else has an ``eval``;
* a model or task of ours is asked for in lmms-eval: :func:`claim`, which refuses if another ``eval`` is in use.

In the clone the folder is called ``eval`` and nothing of this happens.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

_FOLDER = Path(__file__).resolve().parent
PACKAGE = _FOLDER.name  # eval in the clone, holitom_eval installed: what ``python -m`` takes in a process of its own
HOME = str(_FOLDER.parent)  # where Python must look for it


class _Fallback:
    """Finds this folder as ``eval``, asked last of all finders."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See ``importlib.abc.MetaPathFinder``."""
        if name != "eval":
            return None
        init = _FOLDER / "__init__.py"
        return importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(_FOLDER)])


def _is_this(package: ModuleType) -> bool:
    return any(Path(place).resolve() == _FOLDER for place in getattr(package, "__path__", ()))


def claim() -> None:
    """Make ``eval`` this folder in this process.

    Raises:
        InputError: if another package or module of that name is imported already.
    """
    known = sys.modules.get("eval")
    if known is None:
        spec = _Fallback.find_spec("eval")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["eval"] = package = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(package)
    elif not _is_this(known):
        from holitom.errors import InputError  # noqa: PLC0415

        where = getattr(known, "__file__", None) or ", ".join(getattr(known, "__path__", ())) or "sys.modules"
        raise InputError(
            f"a module called eval is in use already ({where}), and holitom's measurements need that name: start from "
            "a folder without an eval, and leave out what imports it"
        )


def _runs_a_module_of_ours() -> bool:
    words = sys.orig_argv
    named = words[words.index("-m") + 1 :][:1] if "-m" in words else []
    return [name.partition(".")[0] for name in named] == [PACKAGE]


def _answer_arguments() -> None:
    """Help and complaints about arguments before the imports of the command that is started."""
    if sys.argv[:1] == ["-m"] and _runs_a_module_of_ours():
        early = importlib.import_module(f"{PACKAGE}.instruments.early")
        early.answer(early.asked())


_answer_arguments()
if __name__ == "holitom_eval":
    if "eval" not in sys.modules and _runs_a_module_of_ours():
        claim()
    else:
        sys.meta_path.append(_Fallback)  # type: ignore[arg-type]
