"""Worlds to train on: those of the benchmark, and still ones that say everything in every frame."""

import numpy as np

from eval.synthetic.world.events import COLORS, SCENES, SHAPES, Shot, Thing, World, place_thing, sample_world
from eval.synthetic.world.questions import Facts


def draw_sound(rng: np.random.Generator) -> tuple[World, Facts]:
    """A world in which everything can be seen."""
    while True:
        world = sample_world(rng)
        facts = Facts(world)
        if facts.sound():
            return world, facts


def draw_still(rng: np.random.Generator) -> tuple[World, Facts]:
    """A world of one scene with objects at rest: every frame says everything."""
    while True:
        world = still_world(rng, int(rng.integers(1, 5)), True)
        facts = Facts(world, samplings=(1,))
        if facts.sound():
            return world, facts


def still_world(rng: np.random.Generator, count: int, apart: bool) -> World:
    """One scene with objects that stand still.

    Args:
        rng: source of every choice.
        count: number of objects.
        apart: unequal colors and places that do not touch, as far as that is possible.
    """
    shot = Shot(
        0.0,
        str(rng.choice(SCENES)),
        (float(rng.uniform(0, 256)), float(rng.uniform(0, 256))),
        (0.0, 0.0),
        float(rng.uniform(0.85, 1.12)),
    )
    colors = rng.permutation(len(COLORS))[:count] if apart else rng.integers(len(COLORS), size=count)
    things: list[Thing] = []
    for color in colors:
        words = (COLORS[color], str(rng.choice(SHAPES)), "still")
        if apart:
            things.append(place_thing(rng, words, (0.0, 1.0), False, things))
            continue
        radius = float(rng.uniform(0.1, 0.14))
        x, y = (float(value) for value in rng.uniform(radius, 1 - radius, 2))
        things.append(Thing(*words, radius, 0.0, 1.0, (x, y), 0.0))
    quality = int(rng.integers(35, 80)) if rng.random() < 0.6 else 0
    return World((shot,), tuple(things), 0.0, float(rng.uniform(0, 6)), quality, int(rng.integers(2**31)))
