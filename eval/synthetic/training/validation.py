"""What a stage must reach, measured on worlds that training never draws."""

import dataclasses

import numpy as np
import torch

from eval.synthetic.training.codes import pooled_shares
from eval.synthetic.training.drawn_worlds import draw_sound
from eval.synthetic.training.features import encode, kept_features
from eval.synthetic.training.frames import Frames
from eval.synthetic.training.language import RunningShares, language_outcome
from eval.synthetic.training.prompts import Prompts
from eval.synthetic.training.streams import StreamConfig, VideoQuestions
from eval.synthetic.training.vision import vision_loss
from eval.synthetic.world.events import sampled_times
from eval.synthetic.world.raster import render
from llava.model.language_model.llava_qwen import LlavaQwenForCausalLM

SEED = 900_001  # of data that no stage trains on
_VIDEOS = 60
_BATCHES = 12
_RETAINED = 16  # of 64 tokens: 25 %


def _similarities(model: LlavaQwenForCausalLM) -> dict[str, float]:
    """Recall of object cells by received attention, and cosines of background cells between consecutive frames."""
    found, cells, same, cut = 0.0, 0, [], []
    for number in range(_VIDEOS):
        world, _ = draw_sound(np.random.default_rng([SEED, number]))
        times = sampled_times(8)
        objects = torch.from_numpy(pooled_shares(world, times, 2)[:, len(world.shots) :].sum(axis=1))
        tokens, received = encode(model, torch.from_numpy(render(world, times)))
        top = torch.zeros_like(received).scatter_(1, received.topk(_RETAINED).indices, 1.0)
        shown = objects > 0.5
        found, cells = found + float((top * shown).sum()), cells + int(shown.sum())
        cosine = torch.cosine_similarity(tokens[1:], tokens[:-1], dim=-1)
        ground = (objects[1:] == 0) & (objects[:-1] == 0)
        shots = torch.from_numpy(world.shot_at(times))
        stays = (shots[1:] == shots[:-1])[:, None]
        same.append(cosine[ground & stays])
        cut.append(cosine[ground & ~stays])
    within, across = torch.cat(same), torch.cat(cut)
    return {
        "recall": found / cells,
        "within_shot_median": float(within.median()),
        "within_shot_10%": float(within.quantile(0.1)),
        "across_cut_median": float(across.median()),
    }


@torch.no_grad()
def validate_tower(model: LlavaQwenForCausalLM) -> dict[str, float]:
    """Shares of patches named right, recall by received attention, similarities."""
    sums: dict[str, list[float]] = {}
    stream = Frames(32, 0.5, SEED)
    for number in range(_BATCHES):
        _, parts = vision_loss(model, stream.batch(np.random.default_rng([SEED, number])).to(model.device))
        for name, value in parts.items():
            sums.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in sums.items()} | _similarities(model)


@torch.no_grad()
def validate_language(
    model: LlavaQwenForCausalLM, prompts: Prompts, folder: str, config: StreamConfig
) -> dict[str, float]:
    """Share of right answers by family with (``letters.``) and without (``words.``) options, and their means."""
    tally = RunningShares(decay=1.0)
    for letters in (0.0, 1.0):
        stream = VideoQuestions(dataclasses.replace(config, letters=letters), folder, SEED)
        stream.prompts = prompts
        for number in range(_BATCHES):
            batch = stream.batch(np.random.default_rng([SEED, number])).to(model.device)
            outcome = language_outcome(model, None, prompts.before, batch, kept_features(model, batch))
            tally.add(batch, outcome.right)
    result: dict[str, float] = {}
    for kind, shares in tally.shares().items():
        families = [share for family, share in shares.items() if family != "told"]
        result |= {f"{kind}.{family}": share for family, share in shares.items()}
        result[f"{kind}.mean"] = float(np.mean(families))
    return result
