"""Logits that are not finite stop a generation: their argmax is a token, but no answer."""

import torch
from torch import Tensor

from llava.errors import InputError


def all_finite(logits: Tensor) -> Tensor:
    """Whether every entry is finite, a bool scalar on the logits' device."""
    return torch.isfinite(logits).all()


def require_finite_logits(sound: bool) -> None:
    """Raise :class:`InputError` unless ``sound``."""
    if not sound:
        raise InputError(
            "the model's logits are NaN or infinite, so that no answer means anything: load the checkpoint in bfloat16 "
            "or float32, and check its weights"
        )


class LogitsWatch:
    """Of one generation: what was seen of its logits, kept on the device until the end."""

    def __init__(self) -> None:
        self._sound: Tensor | None = None

    def see(self, logits: Tensor) -> None:
        """Note the logits of one call, (batch, kept, vocabulary); waits for nothing."""
        self.add(all_finite(logits))

    def add(self, sound: Tensor) -> None:
        """Note a bool scalar."""
        self._sound = sound if self._sound is None else self._sound.to(sound.device) & sound

    def check(self) -> None:
        """The one transfer of a generation, at its end.

        Raises:
            InputError: if any logits were not finite.
        """
        require_finite_logits(self._sound is None or bool(self._sound))
