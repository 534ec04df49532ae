"""Our package ``llava``, and others of that name: LLaVA-NeXT, which many have installed, is called so too.

Nothing of ``llava`` is imported to find out, since what others do when they are imported is not ours to run.
"""

import importlib.util
import re
import sys
from pathlib import Path

_MARK = "RUNTIME_OF"  # in ``llava/__init__.py``


def _found() -> Path | None:
    """The ``__init__.py`` that ``import llava`` runs, or has run; None if there is no such package."""
    try:
        spec = importlib.util.find_spec("llava")
    except (ImportError, ValueError):  # ValueError: a module put into sys.modules by hand
        return Path(str(getattr(sys.modules.get("llava"), "__file__", None) or "sys.modules"))
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def foreign_runtime() -> Path | None:
    """Folder of the package ``llava`` that Python finds, if it is another than ours; None also if there is none."""
    path = _found()
    if path is None or runtime_is_ours():
        return None
    return path.parent


def runtime_is_ours() -> bool:
    """Whether ``import llava`` gives our runtime."""
    path = _found()
    if path is None:
        return False
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(rf'^{_MARK} = "holitom"', text, re.MULTILINE) is not None


def runtime_problem() -> str | None:
    """Why our runtime cannot be imported, with the remedy, in one line; None if it can."""
    if runtime_is_ours():
        return None
    other = foreign_runtime()
    if other is None:
        return "the package llava of holitom is not installed: install holitom again"
    ours = Path(__file__).resolve().parent.parent
    first = f"put {ours} first on PYTHONPATH, or " if (ours / "llava").is_dir() and ours != other.parent else ""
    return (
        f"the package llava at {other} is not the one that holitom brings but another one, as LLaVA-NeXT's is: "
        f"{first}give holitom an environment of its own; models of transformers' own classes need no llava"
    )
