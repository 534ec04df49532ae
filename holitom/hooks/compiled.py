"""Compiled code passes hooks by, or traces them once and for all: models under hooks are not compiled.

``torch.compile`` reads a module's hooks when it traces. What was traced before hooks came is used again after, also for
another model of the same class, unless it is told to look at the hooks each time.
"""

import torch
from torch import nn

from holitom.errors import InputError

_REMEDY = "compiled code passes hooks by: compress the model without compile()"


def refuse_compiled(module: nn.Module) -> None:
    """Raise if a module or one inside it was compiled in place.

    Raises:
        InputError: naming the module.
    """
    if isinstance(module, torch._dynamo.OptimizedModule):
        raise InputError(f"the model is wrapped by torch.compile, and {_REMEDY}")
    for name, each in module.named_modules():
        if each._compiled_call_impl is not None:
            raise InputError(f"{type(module).__name__} is compiled ({name or 'itself'}), and {_REMEDY}")


def forget_compiled() -> None:
    """Have code that was compiled before hooks came traced anew, and later code ask for hooks in each call."""
    torch._dynamo.config.skip_nnmodule_hook_guards = False
    torch.compiler.reset()


def refuse_tracing() -> None:
    """To be called in hooks: raise while they are traced.

    Raises:
        InputError: if the calling code is being compiled.
    """
    if torch.compiler.is_compiling():
        torch.compiler.disable(_refuse)()  # an exception of traced code may be swallowed


def _refuse() -> None:
    raise InputError(f"the model was compiled after it was compressed, and {_REMEDY}")
