"""The checkpoint's model card, written from what the stages recorded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.synthetic.training.stages import Stage
from eval.synthetic.world.questions import FAMILIES, SCORED

_HEAD = """# A tiny LLaVA-OneVision, learned from rendered clips

An instrument for comparing token-compression methods without a download or a GPU. It knows coloured shapes on six
textures and nothing else; **its numbers are no evidence about the 7B model**.

* Vision tower: SigLIP, 128 pixels, patch 8, hidden 128, two heads, four layers that run (the configuration says five,
  the last is dropped at load as in every LLaVA-OneVision). Projector: two linear layers with GELU. 64 tokens per
  frame after 2 x 2 bilinear pooling, one newline token per video.
* Language model: Qwen2, hidden 128, eight layers, four query and two key/value heads, tied embeddings. {parameters:,}
  parameters in all, stored in float16.
* Tokenizer: byte-level BPE, one token for every word of the world and for the sentences of every prompt.
* Trained on 8 and 16 frames per clip. Load it like any other checkpoint: `load_pretrained_model("checkpoints/tiny")`.

## Data

Worlds drawn from a seed (`eval/synthetic/world/events.py`), rendered at 128 x 128 (`raster.py`), with questions of
twelve families (`questions.py`). Training worlds, validation worlds and the benchmark have different seeds. Nothing was
collected, nothing shows a person.

## Recipe

`bash scripts/train_tiny.sh` on {device}. The tower learns to give every patch a code of what it shows and where it
is, and to attend to objects; the language model first learns on exact codes, then on what the tower sees, first with
some tokens of a frame, in the end with all.

| stage | trains | steps | highest rate | minutes | reached |
|---|---|---|---|---|---|
"""

_TAIL = """
Minutes are wall time beside other work on the same machine. "reached" is measured on validation worlds, before
compression, by the trainer; the scores of the benchmark are in `results/tiny/`. The stages were found one after the
other while training: where one stood still, the next changed the data, added layers that compute nothing at first, or
asked for a label in between. The script repeats them in that order.

## What it has learned

Share of right answers on validation worlds at the end, with options (a letter) and without (words):

| family | letter | words | counts in the score |
|---|---|---|---|
{families}

Families that do not count are asked and shown all the same. Asked for words, the model finds where an object stands and
often the scene; it has not learned to find the letter of an answer that it works out in a late layer. Answers in words
serve training alone: color and attribute were hardly asked that way.

## Limits

* Twelve kinds of questions in fixed wordings; anything else gets an arbitrary letter.
* "Which object appears first" is harder for it than "last".
* Real footage is outside its world: token counts, times and maps of it mean something, answers do not.
* Its attention is trained towards objects and its features towards fixed cosines, so that the thresholds of the methods
  mean what they mean for a large model. Margins between methods need not carry over.
* Trained with token dropping that prefers objects, which may favour methods that keep them.
"""


def _minutes(folder: Path) -> float:
    """Wall time of a stage: its log counts seconds from each start."""
    total, last = 0.0, 0.0
    for line in (folder / "log.jsonl").read_text().splitlines():
        seconds = json.loads(line)["seconds"]
        total += seconds - last if seconds >= last else seconds
        last = seconds
    return total / 60


def _reached(values: dict[str, float], gates: dict[str, float]) -> str:
    names = ["letters.mean", *gates] if "letters.mean" in values else list(gates)
    return ", ".join(f"{name} {values[name]:.3f}" for name in dict.fromkeys(names))


def _row(stage: Stage, root: Path) -> str:
    done: dict[str, Any] = json.loads((root / stage.name / "done.json").read_text())
    cells = (
        stage.name,
        stage.kind,
        stage.steps,
        stage.rate,
        f"{_minutes(root / stage.name):.0f}",
        _reached(done["reached"], stage.gates),
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def card(root: Path, parameters: int, stages: Sequence[Stage]) -> str:
    """The card's text.

    Args:
        root: folder of the stages, all done.
        parameters: of the model.
        stages: of the recipe.
    """
    last: dict[str, Any] = json.loads((root / stages[-1].name / "done.json").read_text())
    device = last.get("device") or last.get("machine") or "CPU"
    rows = "\n".join(_row(stage, root) for stage in stages)
    families = "\n".join(_family(family, last["reached"]) for family in FAMILIES)
    return _HEAD.format(parameters=parameters, device=device) + rows + "\n" + _TAIL.format(families=families)


def _family(family: str, reached: dict[str, float]) -> str:
    letter, words = (reached.get(f"{kind}.{family}") for kind in ("letters", "words"))
    shown = ("-" if value is None else f"{value:.2f}" for value in (letter, words))
    return f"| {family} | {' | '.join(shown)} | {'yes' if family in SCORED else 'no'} |"
