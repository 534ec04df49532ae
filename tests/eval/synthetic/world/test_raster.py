"""Pixels: what is composed is what is painted, shapes can be told, every render is the same."""

from dataclasses import replace

import numpy as np
import pytest

from eval.synthetic.world.clips import write_video
from eval.synthetic.world.events import SHAPES, Shot, Thing, World, sample_world
from eval.synthetic.world.raster import PAINT, SIDE, composition, coverage, render
from llava.video import load_video
from tests.eval.synthetic.world import oracle


def world_of(*things: Thing, scene: str = "sand") -> World:
    return World((Shot(0.0, scene, (3.0, 7.0), (0.0, 0.0), 1.0),), things, 0.0, 0.0, 0, 1)


def still(shape: str, color: str = "red", center: tuple[float, float] = (0.4, 0.6), radius: float = 0.13) -> Thing:
    return Thing(color, shape, "still", radius, 0.0, 1.0, center, 0.0)


@pytest.mark.parametrize("color", PAINT)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_shape_can_be_told_in_each_color(shape: str, color: str) -> None:
    [frame] = render(world_of(still(shape, color)), np.array([0.5]))
    assert oracle.shape_of(oracle.paint_masks(frame[None])[color][0]) == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_of_a_cell_is_the_share_of_its_fine_samples(shape: str) -> None:
    """Against one cell a sample: the mean over 8 x 8 pixels of the frame."""
    thing, center = still(shape), np.array((0.43, 0.57))
    fine = coverage(thing, center, SIDE, 1)
    assert np.allclose(coverage(thing, center, 16, 8), fine.reshape(16, 8, 16, 8).mean(axis=(1, 3)), atol=1e-6)
    area = fine.mean()
    share = {"circle": 0.785, "square": 0.774, "ring": 0.659, "cross": 0.538, "triangle": 0.4, "star": 0.42}[shape]
    assert area == pytest.approx(share * (2 * thing.radius) ** 2, rel=0.12)


@pytest.mark.parametrize("corner", [(0.0, 0.0), (1.0, 0.5), (0.99, 1.2), (-0.5, 0.5)])
def test_objects_over_the_edge_are_cut_off_and_nothing_breaks(corner: tuple[float, float]) -> None:
    whole = coverage(still("square"), np.array((0.5, 0.5)), SIDE, 1).sum()
    assert 0 <= coverage(still("square"), np.array(corner), SIDE, 1).sum() <= 0.51 * whole


def test_composition_sums_to_one_and_agrees_with_painted_pixels() -> None:
    """Naive oracle: paint each object on its own, front to back, pixel by pixel."""
    times = np.linspace(0, 1, 5)
    for number in range(8):
        world = replace(sample_world(np.random.default_rng([3, number])), shake=0.0, noise=0.0, quality=0)
        shares = composition(world, times, SIDE, 1)
        assert np.allclose(shares.sum(axis=1), 1, atol=1e-5)
        assert shares.min() >= 0
        bare = render(replace(world, things=()), times).astype(float)
        painted = render(world, times).astype(float)
        mixed = bare * shares[:, 0, :, :, None]
        for place, thing in enumerate(world.things, start=1):
            mixed += shares[:, place, :, :, None] * np.array(PAINT[thing.color])
        assert np.abs(painted - mixed).max() <= 2  # both are cut to whole grey levels


def test_later_objects_hide_earlier_ones() -> None:
    shares = composition(world_of(still("square", "red"), still("square", "blue")), np.array([0.5]), 16)
    assert shares[0, 1].max() < 0.3
    assert shares[0, 2].max() == 1
    [frame] = render(world_of(still("square", "red"), still("square", "blue")), np.array([0.5]))
    assert (frame[int(0.6 * SIDE), int(0.4 * SIDE)] == PAINT["blue"]).all()


def test_objects_are_gone_outside_their_time() -> None:
    thing = replace(still("circle"), appears=0.3, leaves=0.6)
    shares = composition(world_of(thing), np.array([0.2, 0.3, 0.6, 0.7]), 16)
    assert (shares[:, 1].max(axis=(1, 2)) > 0).tolist() == [False, True, True, False]


def test_renders_repeat_with_noise_shake_and_compression() -> None:
    world = replace(sample_world(np.random.default_rng(2)), shake=1.5, noise=5.0, quality=40)
    times = np.linspace(0, 1, 6)
    first = render(world, times)
    assert first.dtype == np.uint8
    assert first.shape == (6, SIDE, SIDE, 3)
    assert np.array_equal(first, render(world, times))
    assert not np.array_equal(first, render(replace(world, seed=world.seed + 1), times))
    assert not np.array_equal(first, render(world, times, jpeg=False))


def test_video_keeps_the_pixels_and_every_reader_agrees(tmp_path) -> None:
    """Chroma at half the size and the codec's noise leave the paint of every object within 20 grey levels."""
    seen = set()
    for number in range(6):
        world = replace(sample_world(np.random.default_rng([13, number])), shake=0.0)
        path = tmp_path / f"{number}.mp4"
        write_video(path, world, 32)
        clip = load_video(path, 32, reader="pyav")
        assert (clip.total_frames, clip.fps, clip.frames.shape) == (32, 4.0, (32, SIDE, SIDE, 3))
        assert np.array_equal(clip.frames, load_video(path, 32, reader="decord").frames)
        times = np.arange(32) / 31
        made = render(world, times, jpeg=False)
        assert np.abs(clip.frames.astype(int) - made).mean() < 6
        shares = composition(world, times, SIDE, 1)
        for place, thing in enumerate(world.things, start=1):
            inside = shares[:, place] > 0.95
            mean = clip.frames[inside].mean(axis=0)
            assert np.abs(mean - made[inside].mean(axis=0)).max() < 20, (thing.color, mean)
            seen.add(thing.color)
    assert len(seen) >= 5


def test_video_carries_its_color_matrix(tmp_path) -> None:
    import av  # noqa: PLC0415

    write_video(tmp_path / "clip.mp4", world_of(still("star")), 4)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        [frame, *_] = container.decode(video=0)
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (int(frame.colorspace), int(frame.color_range)) == (6, 1)  # SMPTE 170M (BT.601), limited
