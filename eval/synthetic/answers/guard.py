"""What the tests hold the tiny model to: how many answers compression may cost on 200 fixed questions.

The model is deterministic, so a check compares counts: the answers that all tokens get right and the method gets wrong,
less those the other way round. The bands that the counts must lie in are measured by the tests' ``faults.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.synthetic.answers.evaluate import Answer, Answerer, Encoded, by_clip, needed_signals
from eval.synthetic.world.dataset import load_questions
from eval.synthetic.world.items import Item
from eval.synthetic.world.questions import SCORED
from holitom import load_config
from holitom.shipped import CONFIGS
from llava.model.builder import load_pretrained_model
from llava.video import load_video

CHECKPOINT = CONFIGS.parent / "checkpoints" / "tiny"
FRAMES = 8
BANDS = CONFIGS.parent / "tests" / "eval" / "synthetic" / "answers" / "guard.json"


@dataclass(frozen=True)
class Check:
    """A configuration and the questions on which it is compared with all tokens.

    Attributes:
        config: name of a file of ``configs/tiny``.
        overrides: changes of it.
        families: the families asked about.
    """

    config: str
    overrides: tuple[str, ...] = ()
    families: tuple[str, ...] = SCORED


# the first is always held; of the harder ones those in which a fault shows best
CHECKS = {
    "holitom_r25": Check("holitom_r25"),
    "holitom_r10": Check("holitom_r10"),
    "holitom_r05": Check("holitom_r10", ("outer.retain_ratio=0.05",)),
}
ALWAYS = "holitom_r25"


class Guard:
    """The checkpoint and the encoded clips of the split ``guard``.

    Args:
        checkpoint: folder of the model.
        data: folder of the data set.
    """

    def __init__(self, checkpoint: Path, data: Path) -> None:
        tokenizer, model, processor, _ = load_pretrained_model(
            str(checkpoint), None, "llava_qwen", torch_dtype="float32", device_map="cpu"
        )
        configs = [load_config(CONFIGS / "tiny" / f"{check.config}.yaml") for check in CHECKS.values()]
        self._answerer = Answerer(tokenizer, model, processor, needed_signals(config.build() for config in configs))
        self._clips: list[tuple[Encoded, list[Item]]] = [
            (self._answerer.encoded(load_video(items[0].clip, FRAMES).frames), items)
            for _, items in by_clip(load_questions(data, "guard"))
        ]
        self.full = self._ask(None, SCORED)

    def _ask(self, compressor: Any, families: Sequence[str]) -> list[Answer]:
        found = []
        for video, items in self._clips:
            asked = [item for item in items if item.family in families]
            found += self._answerer.answers(compressor, video, asked) if asked else []
        return found

    def count(self, check: Check) -> dict[str, int]:
        """Questions, right answers of all tokens and of the method, and how many more it loses than it gains."""
        config = load_config(CONFIGS / "tiny" / f"{check.config}.yaml", check.overrides)
        method = self._ask(config.build(), check.families)
        full = [answer for answer in self.full if answer.family in check.families]
        right, kept = (sum(answer.right for answer in answers) for answers in (full, method))
        return {"questions": len(full), "full": right, "method": kept, "lost": right - kept}
