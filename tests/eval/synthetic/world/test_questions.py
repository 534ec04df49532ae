"""Questions against an oracle that looks at rendered frames; options; what is refused."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from eval.synthetic.world.events import World, sample_world, sampled_times
from eval.synthetic.world.questions import FAMILIES, SAMPLINGS, Facts, Question, candidates, with_options
from eval.synthetic.world.raster import SIDE, render
from eval.synthetic.world.selection import SPLITS, askable, draw_world, tells_nothing
from tests.eval.synthetic.world import oracle

WORLDS = 45


def clean(world: World) -> World:
    """Without noise and camera shake, and in even light: what the oracle can read."""
    return replace(world, noise=0, shake=0, quality=0)


def drawn(number: int) -> tuple[World, Facts, list[Question]]:
    rng = np.random.default_rng([11, number])
    world = sample_world(rng)
    facts = Facts(world)
    questions = [with_options(c, rng) for group in candidates(facts, rng).values() for c in group]
    return world, facts, questions


@pytest.fixture(scope="module")
def worlds() -> list[tuple[World, Facts, list[Question]]]:
    found = [drawn(number) for number in range(WORLDS)]
    return [one for one in found if one[1].sound()]


@pytest.mark.parametrize("frames", SAMPLINGS)
def test_right_answers_are_those_a_viewer_gives(worlds, frames: int) -> None:
    """For every family, from the pixels of the frames that the model is given."""
    asked: Counter[str] = Counter()
    for world, _, questions in worlds:
        viewer = oracle.Viewer(render(clean(world), sampled_times(frames), jpeg=False))
        if viewer.unsure:
            continue
        for question in questions:
            right = viewer.answers(question.family, question.text)
            offered = [option for option in question.options if option in right]
            assert offered == [question.options[question.answer]], (question, right)
            asked[question.family] += 1
    assert set(asked) == set(FAMILIES)
    assert min(asked.values()) >= 4, asked


def test_four_different_options_one_of_them_right(worlds) -> None:
    letters: Counter[int] = Counter()
    for _, _, questions in worlds:
        for question in questions:
            assert len(set(question.options)) == len(question.options) == 4
            letters[question.answer] += 1
    total = sum(letters.values())
    assert all(0.2 < letters[n] / total < 0.3 for n in range(4)), letters


def test_prompt_is_text_options_and_the_usual_last_line() -> None:
    question = Question("scene", "Which?", ("a", "b", "c", "d"), 2)
    last = "Answer with the option's letter from the given choices directly."
    assert question.prompt == f"Which?\nA. a\nB. b\nC. c\nD. d\n{last}"


def test_brief_objects_show_in_one_of_8_frames_and_one_or_two_of_16(worlds) -> None:
    brief = 0
    for world, facts, _ in worlds:
        for number, thing in enumerate(world.things):
            if thing.brief:
                brief += 1
                assert facts.seen[0][number].sum() == 1
                assert facts.seen[1][number].sum() in (1, 2)
    assert brief > 15


def test_long_needles_show_in_one_or_two_of_64_frames_anywhere() -> None:
    split, places = SPLITS["long"], []
    for number in range(60):
        world, _ = draw_world(split, 0, number)
        facts = Facts(world, split.file_frames, split.samplings)
        for place, thing in enumerate(world.things):
            if thing.brief and facts.sound():
                assert facts.seen[0][place].sum() in (1, 2)
                places.append(int(facts.seen[0][place].argmax()))
    assert len(set(places)) > 10  # not only where sampling 8 frames would meet them
    assert max(places) - min(places) > 40


def test_long_questions_are_right_by_the_oracle_too() -> None:
    split, asked = SPLITS["long"], Counter()
    for number in range(8):
        world, rng = draw_world(split, 0, number)
        viewer = oracle.Viewer(render(clean(world), sampled_times(64, split.file_frames), jpeg=False))
        if viewer.unsure:
            continue
        for family, group in askable(world, split, rng).items():
            for candidate in group:
                assert candidate.answer in viewer.answers(family, candidate.text)
                asked[family] += 1
    assert set(asked) == set(split.families), asked


def test_a_world_with_a_hidden_object_is_not_sound() -> None:
    """A twin painted over an object leaves nothing of it to see."""
    for number in range(20):
        world, facts, _ = drawn(number)
        if facts.sound() and not world.things[0].brief:
            break
    twin = replace(world.things[0], color="cyan" if world.things[0].color != "cyan" else "red")
    hidden = replace(world, things=(world.things[0], twin))
    assert not Facts(hidden).sound()
    assert askable(hidden, SPLITS["test"], np.random.default_rng(0)) == {}


def test_options_of_a_direction_must_not_tell_it() -> None:
    def direction(*options: str) -> Question:
        return Question("direction", "In which direction does the red object move?", options, 0)

    assert tells_nothing(direction("left", "right", "up", "down"))
    assert tells_nothing(direction("up", "down", "around", "still"))
    assert not tells_nothing(direction("left", "right", "up", "still"))  # up is never offered without down if right
    assert tells_nothing(replace(direction("left", "right", "up", "still"), family="scene"))


def test_frames_have_the_size_the_oracle_reads() -> None:
    assert SIDE == oracle.SIDE
