"""The package as it is installed: what is in it, and that it works beside a stranger's ``eval``."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHIPPED = {"holitom": "holitom", "llava": "llava", "eval": "holitom_eval", "configs": "holitom/configs"}
IN_AN_INSTALL = """
import sys
from lmms_eval.models import get_model
from lmms_eval.models.registry_v2 import ModelRegistryV2
import holitom_eval.benchmarks.plugin as plugin
assert "eval" not in sys.modules, "the name was taken before anybody asked for it"
registry = ModelRegistryV2()
registry.load_entrypoint_manifests()
model = registry.get_model_class("llava_onevision_compressed")
print(model.__module__, sys.modules["eval"].__path__[0], plugin.__file__)
from lmms_eval.tasks import TaskManager
import holitom_eval.synthetic.task as task
print([name for name in TaskManager("ERROR", [task.__path__[0]], False).all_tasks if "synthvid" in name])
from holitom import load_compressor
print(load_compressor("llava_onevision_7b/holitom_r10").inner.stages[0].layer)
del sys.modules["eval"]
import eval
assert eval.theirs
try:
    plugin.LlavaVidCompressed
except ValueError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from what git would commit, so that a file is missing here if it would be missing there."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    listed = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard", "--deduplicate"]
    wanted = (*SHIPPED, "checkpoints", "setup.py", "pyproject.toml", "README.md", "LICENSE")
    files = subprocess.run([*listed, *wanted], capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, source / name)
    code = f"import setuptools.build_meta as build; build.build_wheel({str(built)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which pip would unpack it."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with an ``eval`` of its own."""
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "__init__.py").write_text("theirs = True\n")
    return tmp_path


def python(site: Path, elsewhere: Path, *words: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(site), "TRITON_INTERPRET": "0"}
    done = subprocess.run([sys.executable, *words], cwd=elsewhere, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_and_every_configuration_is_in_it_and_no_eval(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        top = archive.read(next(name for name in archive.namelist() if name.endswith("top_level.txt"))).decode().split()
    assert {name.partition("/")[0] for name in names} == set(top) == {"holitom", "holitom_eval", "llava"}
    for folder, package in SHIPPED.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert files
        assert {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in files} <= names
    assert "holitom/checkpoints/tiny/model.safetensors" in names


def test_models_tasks_and_configurations_are_found_from_an_install(site: Path, elsewhere: Path) -> None:
    """In one process, for imports are what takes the time; last, a stranger's ``eval`` that is in use already."""
    pytest.importorskip("lmms_eval")
    model, tasks, layer, refusal = python(site, elsewhere, "-c", IN_AN_INSTALL).splitlines()[-4:]
    ours = site / "holitom_eval"  # and not the stranger's
    assert model == f"eval.benchmarks.lmms.models {ours} {ours}/benchmarks/plugin.py"
    assert tasks == "['synthvid', 'synthvid_long']"
    assert layer == "18"
    assert f"a module called eval is in use already ({elsewhere}/eval/__init__.py)" in refusal


def test_commands_run_by_their_installed_name(site: Path, elsewhere: Path) -> None:
    listed = python(site, elsewhere, "-m", "holitom_eval")
    assert "python -m holitom_eval.benchmarks.run " in listed
    folder = python(site, elsewhere, "-m", "holitom_eval.synthetic.task").strip()
    assert Path(folder) == site / "holitom_eval" / "synthetic" / "task"


def test_whatever_is_told_to_install_is_an_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    told = [
        (path, match)
        for package in ("holitom", "llava", "eval")
        for path in (ROOT / package).rglob("*.py")
        for match in re.findall(r"pip install (?!-e)(\S+)", path.read_text())
    ]
    assert len(told) > 5
    for path, what in told:
        match = re.match(r"'holitom\[(\w+)\]'", what)
        assert match, (path, what)
        assert match[1] in extras, (path, what)
