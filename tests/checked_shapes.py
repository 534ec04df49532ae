"""Checks the shapes in the types of the modules of pure tensor functions while tests run; imported before they are.

The modules are found by a rule, so that a new method brings its own. Elsewhere a wrong type is the user's, and
InputError must come before a type checker's word. Without beartype, which a machine lent for its GPU may lack, nothing
is checked and the run says so.
"""

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

from jaxtyping import install_import_hook

ROOT = Path(__file__).parent.parent
_PURE = [
    *ROOT.glob("holitom/ops/*.py"),
    ROOT / "holitom/hooks/decoder/decoder_layers.py",
    *(path for path in ROOT.glob("holitom/methods/*/*.py") if path.stem not in ("config", "inner", "decode")),
]
MODULES = sorted(".".join(path.relative_to(ROOT).with_suffix("").parts) for path in _PURE if path.stem != "__init__")
EARLY = set(MODULES) & set(sys.modules)
assert not EARLY, f"imported before their shapes could be checked: {EARLY}"
if find_spec("beartype"):
    install_import_hook(MODULES, "beartype.beartype")
else:
    warnings.warn("beartype is not installed: the shapes in types are not checked in this run", stacklevel=2)
