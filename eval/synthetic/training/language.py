"""Loss of the language model on packed questions, with dense side labels on the video's tokens."""

from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from eval.synthetic.training.codes import DIM
from eval.synthetic.training.packed import prefix_pass, question_pass
from eval.synthetic.training.side_labels import SIDES
from eval.synthetic.training.streams import Batch
from eval.synthetic.world.questions import FAMILIES
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

TAP = 3  # side labels are read from the states that enter this layer
_SIDE_WEIGHT, _EARLY_WEIGHT = 0.3, 0.5


class SideHeads(nn.Module):
    """Linear readings of what can be known at a video token. Used in training only."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = nn.ModuleDict({name: nn.Linear(DIM, classes) for name, classes in SIDES.items()})

    def forward(self, states: Tensor, batch: Batch, names: Collection[str]) -> Tensor:
        """Mean cross entropy of the named readings; ``states`` is ``(videos, tokens, 128)``."""
        states = F.rms_norm(states, (DIM,))
        losses = []
        for name in names:
            labels = batch.sides[name].flatten()
            if (labels >= 0).any():
                logits = self.heads[name](states).float().flatten(0, 1)
                losses.append(F.cross_entropy(logits, labels, ignore_index=-100))
        return torch.stack(losses).mean()


@dataclass
class AnswerLoss:
    """One batch's loss and what was right.

    Attributes:
        loss: to minimise.
        parts: named numbers for the log.
        right: whether each question's whole answer was predicted, ``(videos, questions)``.
    """

    loss: Tensor
    parts: dict[str, float]
    right: Tensor


def prefix_embeddings(model: LlavaQwenForCausalLM, before: list[int], features: Tensor) -> Tensor:
    """System prompt, video and newline as the model will see them, ``(videos, prefix, 128)``."""
    decoder = model.get_model()
    videos = features.shape[0]
    words = decoder.embed_tokens(torch.tensor(before, device=features.device)).expand(videos, -1, -1)
    newline = decoder.image_newline.expand(videos, 1, -1)
    return torch.cat([words, features, newline], dim=1).float()


def language_outcome(
    model: LlavaQwenForCausalLM,
    heads: SideHeads | None,
    before: list[int],
    batch: Batch,
    features: Tensor,
    sides: Collection[str] = (),
    early: int | None = None,
) -> AnswerLoss:
    """Cross entropy of the answers of a batch.

    Args:
        model: its decoder is used.
        heads: of the side labels, or None to leave them out.
        before: tokens in front of the video.
        batch: questions and labels.
        features: of the kept tokens, ``(videos, kept, 128)``.
        sides: names of the side labels that count.
        early: the states that enter this layer must tell the answer at the question mark; None asks for nothing.
    """
    decoder = model.get_model()
    with torch.autocast(features.device.type, torch.bfloat16):
        cache, tapped = prefix_pass(decoder, prefix_embeddings(model, before, features), TAP)
        states, middle = question_pass(decoder, cache, batch.tokens, early)
        wanted = batch.labels >= 0
        logits = (states[wanted] @ decoder.embed_tokens.weight.T).float()
    losses = F.cross_entropy(logits, batch.labels[wanted], reduction="none")
    loss = losses.mean()
    parts = {"answer": float(loss.detach())}
    if heads is not None and tapped is not None:
        video = tapped[:, len(before) : -1]
        side = heads(video, batch, sides)
        parts["side"] = float(side.detach())
        loss = loss + _SIDE_WEIGHT * side
    if middle is not None and (batch.early >= 0).any():
        told = _told_early(middle, batch.early, decoder.embed_tokens.weight)
        parts["early"] = float(told.detach())
        loss = loss + _EARLY_WEIGHT * told
    wrong = torch.zeros_like(wanted)
    wrong[wanted] = logits.argmax(-1) != batch.labels[wanted]
    return AnswerLoss(loss, parts, ~wrong.any(dim=-1))


def _told_early(states: Tensor, labels: Tensor, words: Tensor) -> Tensor:
    """Cross entropy of the answer's words where the question ends, so that options can be compared with them."""
    chosen = labels >= 0
    logits = F.rms_norm(states[chosen], (DIM,)) @ words.T
    return F.cross_entropy(logits.float(), labels[chosen])


class RunningShares:
    """Running shares of right answers by family, separately with and without options."""

    def __init__(self, decay: float = 0.97) -> None:
        self.decay, self.right, self.asked = decay, torch.zeros(2, len(FAMILIES) + 1), torch.zeros(2, len(FAMILIES) + 1)

    def add(self, batch: Batch, right: Tensor) -> None:
        """Count a batch."""
        self.right *= self.decay
        self.asked *= self.decay
        index = batch.with_letters.long() * (len(FAMILIES) + 1) + batch.family % (len(FAMILIES) + 1)
        self.right.view(-1).index_add_(0, index.flatten().cpu(), right.flatten().float().cpu())
        self.asked.view(-1).index_add_(0, index.flatten().cpu(), torch.ones(index.numel()))

    def shares(self) -> dict[str, dict[str, float]]:
        """``{"words": {family: share}, "letters": {...}}``."""
        share = self.right / self.asked.clamp(min=1e-6)
        names = (*FAMILIES, "told")
        return {
            kind: {
                name: round(float(share[row, column]), 3)
                for column, name in enumerate(names)
                if self.asked[row, column] > 1
            }
            for row, kind in enumerate(("words", "letters"))
        }
