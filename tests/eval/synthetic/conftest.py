"""A checkpoint with the tiny model's sizes and no training, and questions about rendered worlds."""

from pathlib import Path

import numpy as np
import pytest

from eval.instruments.models.random_checkpoint import write_checkpoint
from eval.synthetic.training.model import new_model
from eval.synthetic.world.events import sample_world, sampled_times
from eval.synthetic.world.items import Item
from eval.synthetic.world.questions import Facts, candidates, with_options
from eval.synthetic.world.raster import render
from llava.model.builder import load_pretrained_model


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the tiny model's sizes."""
    folder = tmp_path_factory.mktemp("untrained")
    model, raw, _ = new_model(folder, 0)
    write_checkpoint(folder, model.state_dict(), raw)
    return folder


@pytest.fixture(scope="session")
def tiny(untrained: Path):
    """Tokenizer, model and processor of the untrained checkpoint."""
    return load_pretrained_model(str(untrained), None, "llava_qwen", torch_dtype="float32")[:3]


def rendered(number: int, frames: int) -> tuple[np.ndarray, list[Item]]:
    """Frames of a world and two questions about it."""
    rng = np.random.default_rng([7, number])
    world = sample_world(rng)
    groups = [group for group in candidates(Facts(world), rng).values() if group][:2]
    items = []
    for group in groups:
        question = with_options(group[0], rng)
        name = f"{number}-{question.family}"
        items.append(Item(name, Path(f"clip{number}.mp4"), question.family, question, frames, number))
    return render(world, sampled_times(frames)), items
