"""Checks the shapes in the types of the modules of pure tensor functions while tests run; imported before they are.

The modules are found by a rule, so that a new method brings its own. Elsewhere a wrong type is the user's, and
InputError must come before a type checker's word. Without beartype, which a machine lent for its GPU may lack, nothing
is checked and the run says so.

A function inside another one is a new one in every call, and was given a checker of its own each time, which cost more
than what it checks: 17 of 115 seconds of the learned model's answers. :func:`checker_of` makes one for all of them.
"""

import sys
import warnings
from collections.abc import Callable, Hashable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent
_SETTINGS_OR_HOOKS = ("config", "tower_config", "inner", "decode")
_PURE = [
    *ROOT.glob("holitom/ops/*.py"),
    ROOT / "holitom/hooks/decoder/decoder_layers.py",
    *(path for path in ROOT.glob("holitom/methods/*/*.py") if path.stem not in _SETTINGS_OR_HOOKS),
]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in _PURE if path.stem != "__init__")
EARLY = set(MODULES) & set(sys.modules)
assert not EARLY, f"imported before their shapes could be checked: {EARLY}"
_made: dict[Hashable, Callable[..., Any]] = {}


def checker_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """What beartype makes of a function without a body, which jaxtyping derives from a signature alone.

    Two of one name in one place with the same types are one; default values are not compared, so none may be there.
    """
    import beartype  # noqa: PLC0415 - may be absent

    if "<locals>" not in function.__qualname__ or function.__defaults__ or function.__kwdefaults__:
        return beartype.beartype(function)
    names = function.__code__.co_varnames
    key = (function.__module__, function.__qualname__, names, tuple(function.__annotations__.items()))
    if key not in _made:
        _made[key] = beartype.beartype(function)
    return _made[key]


if find_spec("beartype"):
    install_import_hook(MODULES, f"{__name__}.checker_of")
else:
    warnings.warn("beartype is not installed: the shapes in types are not checked in this run", stacklevel=2)
