"""Descriptions of worlds: the same from a seed for ever, paths inside the frame, lifetimes, shots."""

import hashlib

import numpy as np
import pytest

from eval.synthetic.world.events import (
    COLORS,
    FILE_FRAMES,
    MOTIONS,
    SCENES,
    SHAPES,
    Thing,
    World,
    sample_world,
    sampled_times,
)
from llava.video import uniform_indices

WORLDS_SHA256 = "f8909254aae3139f92685e649c7f31b9d24760eff47d189e6682ddcf516678ad"


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [sample_world(np.random.default_rng([5, number])) for number in range(150)]


def described(world: World) -> str:
    """Words and numbers to six places, which do not depend on the processor."""
    shots = [f"{s.start:.6f} {s.scene} {s.origin[0]:.6f} {s.pan[1]:.6f} {s.light:.6f}" for s in world.shots]
    things = [
        f"{t.name} {t.motion} {t.radius:.6f} {t.appears:.6f} {t.leaves:.6f} {t.start[0]:.6f} {t.start[1]:.6f} "
        f"{t.travel:.6f} {t.turns:.6f} {t.phase:.6f} {t.brief}"
        for t in world.things
    ]
    return "\n".join([*shots, *things, f"{world.shake:.6f} {world.noise:.6f} {world.quality} {world.seed}"])


def test_draws_never_change(worlds) -> None:
    """A trained checkpoint and the benchmark rest on these draws: changing them makes both worthless."""
    text = "\n\n".join(described(world) for world in worlds[:20])
    assert hashlib.sha256(text.encode()).hexdigest() == WORLDS_SHA256


def test_another_seed_is_another_world(worlds) -> None:
    assert len({described(world) for world in worlds}) == len(worlds)


def test_objects_stay_inside_the_frame_while_visible(worlds) -> None:
    times = np.linspace(0, 1, 101)
    for world in worlds:
        for thing in world.things:
            centers = thing.centers(times)[thing.visible(times)]
            assert (centers - thing.radius > 0).all()
            assert (centers + thing.radius < 1).all()


def test_objects_move_as_their_word_says(worlds) -> None:
    met = set()
    for thing in (thing for world in worlds for thing in world.things):
        ends = np.array([max(0.0, thing.appears), min(1.0, thing.leaves)])
        (x0, y0), (x1, y1) = thing.centers(ends)
        met.add(thing.motion)
        if thing.motion == "around":
            path = thing.centers(np.linspace(*ends, 200))
            assert np.allclose(np.hypot(*(path - thing.start).T), thing.travel)
            turned = np.unwrap(np.arctan2(*(path - thing.start).T[::-1]))
            assert abs(turned[-1] - turned[0]) > 0.89 * 2 * np.pi
        else:
            wanted = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}[thing.motion]
            assert np.allclose((x1 - x0, y1 - y0), np.array(wanted) * thing.travel)
            assert thing.travel >= 0.36 or thing.motion == "still"
    assert met == set(MOTIONS)


def test_colors_are_unique_in_a_world_and_words_are_known(worlds) -> None:
    for world in worlds:
        colors = [thing.color for thing in world.things]
        assert len(set(colors)) == len(colors) <= 4
        assert set(colors) <= set(COLORS)
        assert {thing.shape for thing in world.things} <= set(SHAPES)
        assert sum(thing.brief for thing in world.things) <= 1


def test_shots_begin_at_zero_show_different_scenes_and_last_a_fifth(worlds) -> None:
    counts = set()
    for world in worlds:
        starts = [shot.start for shot in world.shots]
        assert starts[0] == 0
        assert (np.diff([*starts, 1.0]) >= 0.2 - 1e-9).all()
        scenes = [shot.scene for shot in world.shots]
        assert len(set(scenes)) == len(scenes)
        assert set(scenes) <= set(SCENES)
        counts.add(len(scenes))
    assert counts == {1, 2, 3, 4}


def test_lifetimes_of_objects_that_are_not_brief_are_long(worlds) -> None:
    kinds = set()
    for thing in (thing for world in worlds for thing in world.things if not thing.brief):
        kinds.add((thing.appears == 0, thing.leaves == 1))
        assert thing.leaves - thing.appears >= 0.45
    assert kinds == {(True, True), (False, True), (True, False)}


def test_visible_is_the_closed_interval() -> None:
    thing = Thing("red", "star", "still", 0.1, 0.25, 0.5, (0.3, 0.3), 0.0)
    assert thing.visible(np.array([0.24, 0.25, 0.5, 0.51])).tolist() == [False, True, True, False]


@pytest.mark.parametrize("frames", [8, 16, 64])
def test_sampled_times_are_those_of_the_frames_a_model_is_given(frames: int) -> None:
    total = 128 if frames == 64 else FILE_FRAMES
    assert np.allclose(sampled_times(frames, total) * (total - 1), uniform_indices(total, frames))
