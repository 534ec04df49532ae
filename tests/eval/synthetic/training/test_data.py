"""Codes, prompts and batches of the training."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from eval.synthetic.training.codes import (
    DIM,
    content_codes,
    directions,
    place_codes,
    pooled_shares,
    seen_shares,
    target_codes,
)
from eval.synthetic.training.drawn_worlds import draw_sound, draw_still
from eval.synthetic.training.frames import Frames
from eval.synthetic.training.prompts import Prompts, padded
from eval.synthetic.training.side_labels import token_labels
from eval.synthetic.training.streams import StreamConfig, VideoQuestions, choose_tokens, draw_questions
from eval.synthetic.world.events import COLORS, MOTIONS, SCENES, sample_world, sampled_times
from eval.synthetic.world.questions import FAMILIES, Facts, candidates, with_options
from eval.synthetic.world.raster import composition
from eval.synthetic.world.tokenizer import write_tokenizer
from llava.conversation import conv_templates


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return Prompts(folder)


def test_directions_are_orthonormal() -> None:
    rows = torch.cat(list(directions().values()))
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_codes_have_length_one_and_tell_scenes_apart() -> None:
    world, _ = draw_sound(np.random.default_rng(4))
    shares = seen_shares(world, sampled_times(8), 16, 1)
    codes = target_codes(world, shares)
    pure = torch.from_numpy(shares.max(axis=1) == 1)
    torch.testing.assert_close(codes.norm(dim=-1)[pure], torch.ones(int(pure.sum())), atol=1e-4, rtol=0)
    places = place_codes(16)
    first, second = (direction * 0.6**0.5 + places for direction in directions()["scene"][:2])
    torch.testing.assert_close(torch.cosine_similarity(first, second), torch.full((256,), 0.4), atol=1e-4, rtol=0)


def test_target_is_the_mix_of_what_a_cell_shows() -> None:
    world, _ = draw_sound(np.random.default_rng(5))
    times = sampled_times(8)
    codes, shares = target_codes(world, seen_shares(world, times, 16, 2)), composition(world, times, 16, 2)
    contents = content_codes(world)
    for frame, row, column in ((0, 3, 4), (5, 8, 8), (7, 15, 0)):
        shot = int(world.shot_at(times)[frame])
        expected = place_codes(16)[16 * row + column] + shares[frame, 0, row, column] * contents[shot]
        for number in range(len(world.things)):
            expected = expected + shares[frame, 1 + number, row, column] * contents[len(world.shots) + number]
        torch.testing.assert_close(codes[frame, 16 * row + column], expected, atol=1e-5, rtol=0)


def test_a_token_shows_the_mean_of_its_four_patches() -> None:
    world, _ = draw_sound(np.random.default_rng(6))
    times = sampled_times(8)
    patches, tokens = seen_shares(world, times, 16, 2), pooled_shares(world, times, 2)
    assert tokens.shape == (8, len(world.shots) + len(world.things), 64)
    for row, column in np.ndindex(8, 8):
        four = [16 * (2 * row + down) + 2 * column + right for down in (0, 1) for right in (0, 1)]
        np.testing.assert_allclose(tokens[:, :, 8 * row + column], patches[:, :, four].mean(axis=2), atol=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_pieces_equal_the_whole_prompt(prompts: Prompts, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for group in candidates(draw_sound(rng)[1], rng).values():
        for candidate in group:
            question = with_options(candidate, rng)
            template = conv_templates["qwen_1_5"].copy()
            template.append_message(template.roles[0], f"<image>\n{question.prompt}")
            template.append_message(template.roles[1], None)
            before, after = template.get_prompt().split("<image>")
            ids, answer = prompts.letters(question)
            assert prompts.before == prompts.tokenizer.encode(before)
            assert ids == prompts.tokenizer.encode(after)
            assert prompts.tokenizer.decode(answer) == "ABCD"[question.answer] + "<|im_end|>"
            words, wanted = prompts.words(question)
            place, early = prompts.early(question)
            assert prompts.tokenizer.decode(ids[place]) == "?" == prompts.tokenizer.decode(words[place])
            assert early == wanted[:-1]
            assert prompts.tokenizer.decode(wanted) == f" {question.options[question.answer]}<|im_end|>"
            assert "A." not in prompts.tokenizer.decode(words)


def test_padded_labels_stand_where_the_answer_is_predicted() -> None:
    tokens, labels = padded([([1, 2, 3], [4, 5]), ([6], [7, 8])], pad=0)
    assert tokens.tolist() == [[1, 2, 3, 4], [6, 7, 0, 0]]
    assert labels.tolist() == [[-100, -100, 4, 5], [7, 8, -100, -100]]


def test_motion_is_known_after_three_frames_and_counts_grow() -> None:
    for seed in range(8):
        world, _ = draw_sound(np.random.default_rng(seed))
        shares = seen_shares(world, sampled_times(8), 8, 2)
        labels = {name: row.reshape(8, 64) for name, row in token_labels(world, shares).items()}
        motion, things, shots = (labels[name] for name in ("motion", "things", "shots"))
        for number, thing in enumerate(world.things):
            cells = shares[:, len(world.shots) + number] > 0.5
            present = cells.any(axis=1)
            for frame in range(8):
                known = present[: frame + 1].sum() >= 3
                assert set(motion[frame][cells[frame]].tolist()) <= {MOTIONS.index(thing.motion) if known else -100}
        assert (np.diff(things[:, 0]) >= 0).all()
        assert things[0, 0] == shots[0, 0] == 0
        assert shots[-1, 0] == len(set(world.shot_at(sampled_times(8))[:-1].tolist()))


def test_side_labels_name_what_a_token_shows() -> None:
    world, _ = draw_sound(np.random.default_rng(3))
    times = sampled_times(8)
    shares = seen_shares(world, times, 8, 2)
    labels = token_labels(world, shares)
    names = [shot.scene for shot in world.shots] + [thing.color for thing in world.things]
    for token in range(0, 512, 7):
        frame, cell = divmod(token, 64)
        most = int(shares[frame, :, cell].argmax())
        if shares[frame, most, cell] <= 0.5:
            continue
        ground = most < len(world.shots)
        assert labels["ground"][token] == (SCENES.index(names[most]) if ground else -100)
        assert SCENES[labels["scene"][token]] == world.shots[int(world.shot_at(times)[frame])].scene
        assert SCENES[labels["opening"][token]] == world.shots[0].scene
        assert labels["color"][token] == (-100 if ground else COLORS.index(names[most]))
        assert (labels["shape"][token] >= 0) == (not ground)


def test_history_labels_agree_with_the_frames_before() -> None:
    met = 0
    for seed in range(12):
        world, _ = draw_sound(np.random.default_rng(seed))
        shares = seen_shares(world, sampled_times(8), 8, 2)
        labels = token_labels(world, shares)
        arrivals: dict[str, int] = {}
        for frame in range(8):
            for name, pick in (("earliest", min), ("latest", max)):
                moment = pick(arrivals.values(), default=None)
                colors = [color for color, arrival in arrivals.items() if arrival == moment]
                wanted = COLORS.index(colors[0]) if len(colors) == 1 else -100
                met += wanted >= 0
                assert set(labels[name][64 * frame : 64 * frame + 64].tolist()) == {wanted}
            for number, thing in enumerate(world.things):
                if (shares[frame, len(world.shots) + number] > 0.5).any():
                    arrivals.setdefault(thing.color, frame)
    assert met > 50


def test_chosen_tokens_are_ordered_and_even_over_frames() -> None:
    rng = np.random.default_rng(0)
    world, _ = draw_sound(rng)
    shares = seen_shares(world, sampled_times(8), 8, 2)
    chosen = choose_tokens(shares, len(world.shots), 12, 1.0, rng)
    assert (np.diff(chosen) > 0).all()
    assert np.bincount(chosen // 64, minlength=8).tolist() == [12] * 8


def test_batches_depend_on_seed_and_number_alone(prompts: Prompts, tmp_path: Path) -> None:
    folder = prompts.tokenizer.name_or_path
    config = StreamConfig(videos=2, questions=3, pixels=True)
    first = iter(VideoQuestions(config, folder, seed=7))
    next(first)
    second, again = next(first), next(iter(VideoQuestions(config, folder, seed=7, first=1)))
    other = next(iter(VideoQuestions(config, folder, seed=8, first=1)))
    for name, value in vars(second).items():
        if name == "sides":
            assert all(torch.equal(row, again.sides[side]) for side, row in value.items())
        else:
            assert value is None or torch.equal(value, getattr(again, name)), name
    assert not torch.equal(second.pixels, other.pixels)


def test_workers_make_the_same_batches_in_the_same_order() -> None:
    alone = list(islice(Frames(2, 0.5, seed=7, first=3), 4))
    many = list(islice(DataLoader(Frames(2, 0.5, seed=7, first=3), batch_size=None, num_workers=2), 4))
    for batch, other in zip(alone, many, strict=True):
        assert all(torch.equal(value, getattr(other, name)) for name, value in vars(batch).items())
    assert len({batch.pixels.numpy().tobytes() for batch in alone}) == 4
    later = next(iter(Frames(2, 0.5, seed=7, first=6)))
    assert torch.equal(later.pixels, alone[3].pixels)


def test_only_families_that_are_wanted_are_asked(prompts: Prompts) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        _, facts = draw_sound(rng)
        assert {q.family for q in draw_questions(facts, 12, ("shape", "count"), StreamConfig(), rng)} == {
            "shape",
            "count",
        }
    for letters in (0.0, 1.0):  # without options, families with several right answers are left out
        config = StreamConfig(videos=4, questions=24, letters=letters, told=0.0)
        batch = next(iter(VideoQuestions(config, prompts.tokenizer.name_or_path, seed=0)))
        assert (FAMILIES.index("existence") in batch.family.flatten().tolist()) == bool(letters)


def test_rare_families_and_firsts_are_asked_less() -> None:
    rng = np.random.default_rng(2)
    config = StreamConfig(rare=("shape",), firsts=0.1)
    drawn = [question for _ in range(40) for question in draw_questions(draw_sound(rng)[1], 12, FAMILIES, config, rng)]
    asked = [question.family for question in drawn]
    assert 0.1 < asked.count("shape") / asked.count("count") < 0.5
    first = sum(" first" in question.text for question in drawn)
    assert 0 < first < 0.3 * sum(" last" in question.text for question in drawn)


def test_still_worlds_say_everything_in_every_frame() -> None:
    for seed in range(10):
        world, facts = draw_still(np.random.default_rng(seed))
        assert len(world.shots) == 1
        assert all(thing.motion == "still" and not thing.brief for thing in world.things)
        assert facts.sound()


def test_features_are_codes_with_noise(prompts: Prompts) -> None:
    stream = VideoQuestions(StreamConfig(videos=1, questions=1), prompts.tokenizer.name_or_path, seed=0)
    batch = next(iter(stream))
    assert batch.features is not None
    assert batch.features.shape == (1, 96, DIM)
    assert 0.8 < float(batch.features.norm(dim=-1).mean()) < 1.3
    assert isinstance(sample_world(np.random.default_rng(0)).seed, int)
    assert Facts(sample_world(np.random.default_rng(0))).seen[0].shape[1] == 8
