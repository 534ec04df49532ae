"""Errors a user can cause and mend: those of ``llava.errors``, so that one ``except`` catches both packages'.

Where our ``llava`` is absent, or hidden by another package of that name, they are classes of the same names: holitom
works on transformers' own models without it.
"""

import reprlib
from typing import TYPE_CHECKING, Any

from holitom.runtime import runtime_is_ours, runtime_problem

__all__ = ["CheckpointError", "InputError", "require_runtime", "shown"]

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


def require_runtime() -> None:
    """Before an import of ``llava``.

    Raises:
        InputError: if it is absent, or another package of that name is found instead.
    """
    problem = runtime_problem()
    if problem is not None:
        raise InputError(problem)
