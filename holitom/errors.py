"""Errors a user can cause and mend: those of ``llava.errors``, so that one ``except`` catches both packages'.

Where our ``llava`` is absent, or hidden by another package of that name, they are classes of the same names: holitom
works on transformers' own models without it. LLaVA-NeXT, which many have installed, is called so too. Nothing of
``llava`` is imported to find out whose it is, since what others do when they are imported is not ours to run.
"""

import importlib.util
import re
import reprlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

__all__ = ["CheckpointError", "InputError", "runtime_found", "runtime_is_ours", "shown"]
_MARK = "RUNTIME_OF"  # in ``llava/__init__.py``


def runtime_found() -> Path | None:
    """The ``__init__.py`` that ``import llava`` runs, or has run; None if there is no such package."""
    try:
        spec = importlib.util.find_spec("llava")
    except (ImportError, ValueError):  # ValueError: a module put into sys.modules by hand
        return Path(str(getattr(sys.modules.get("llava"), "__file__", None) or "sys.modules"))
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def runtime_is_ours() -> bool:
    """Whether ``import llava`` gives our runtime."""
    path = runtime_found()
    try:
        text = "" if path is None else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return re.search(rf'^{_MARK} = "holitom"', text, re.MULTILINE) is not None


if TYPE_CHECKING or runtime_is_ours():
    from llava.errors import CheckpointError, InputError, shown
else:

    class InputError(ValueError):
        """See ``llava.errors.InputError``."""

    class CheckpointError(InputError):
        """See ``llava.errors.CheckpointError``."""

    def shown(value: Any) -> str:
        """See ``llava.errors.shown``."""
        try:
            return " ".join(reprlib.repr(value).split())
        except ValueError:
            return f"a {type(value).__name__} too long to print"
