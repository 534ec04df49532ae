"""The loss of a compressed transformers model: labels count the long prompt, logits the tokens that are left.

Reached through ``model.loss_function``, which transformers lets everybody set, and not through hooks on the model:
wrappers such as those of adapters call ``model.forward`` itself, past its hooks.
"""

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor, nn

from holitom.errors import InputError
from holitom.hooks.per_thread import PerThread

IGNORE_INDEX = -100  # the default of torch's and transformers' losses


class AlignedLoss:
    """Stands in for one model's loss function; ``apply`` and ``remove`` are inverse.

    Args:
        compressor: aligns labels with what the inner stage kept.
    """

    _left = PerThread[tuple[Tensor, Tensor]]()

    def __init__(self, compressor: Any) -> None:
        self._compressor = compressor
        self._model: Any = None
        self._compute: Any = None
        self._own = False

    def apply(self, model: nn.Module) -> None:
        """Take the place of the model's loss function."""
        self._model, self._own = model, "_loss_function" in vars(model)
        self._compute = model.loss_function
        model.loss_function = self  # type: ignore[assignment] # a property with a setter

    def remove(self) -> None:
        """Give the model its loss function back."""
        if self._model is not None:
            del self._model._loss_function
            if self._own:
                self._model.loss_function = self._compute
        self._model = self._compute = self._left = None

    def note(self, kept: Int[Tensor, "batch short_seq"], visual: Bool[Tensor, "batch seq"]) -> None:
        """What the prefill that is running left, and which tokens of the prompt are visual."""
        self._left = kept, visual

    def forget(self) -> None:
        """No prompt is shortened in the call that begins."""
        self._left = None

    def __call__(self, *, logits: Tensor, labels: Tensor, **kwargs: Any) -> Tensor:
        """The model's own loss of labels that follow the kept tokens; visual tokens do not count.

        Args:
            logits: (batch, kept, vocabulary).
            labels: (batch, seq) of the prompt before compression.
            **kwargs: passed on.

        Raises:
            InputError: if the labels have not the prompt's shape, or ``logits_to_keep`` left logits out.
        """
        left = self._left
        if left is None:
            return self._compute(logits=logits, labels=labels, **kwargs)
        kept, visual = left
        if labels.shape != visual.shape:
            raise InputError(
                f"labels of shape {tuple(labels.shape)} for a prompt of shape {tuple(visual.shape)}: they must be equal"
            )
        text = labels.to(visual.device).masked_fill(visual, IGNORE_INDEX)
        short = text.gather(1, kept.clamp(min=0)).masked_fill(kept < 0, IGNORE_INDEX)
        aligned = self._compressor.align_labels(short, logits.shape[1])
        if aligned.shape[1] != logits.shape[1]:
            raise InputError(
                f"logits_to_keep leaves {logits.shape[1]} of {aligned.shape[1]} positions, and labels need all: use 0"
            )
        return self._compute(logits=logits, labels=aligned.to(logits.device), **kwargs)
