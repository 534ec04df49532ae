"""Compression must cost as many answers as it did: the learned tiny model on 200 fixed questions, 152 of which count.

The bands are those of guard.json, which ``faults.py`` writes after the checkpoint or the method has changed. They
end on both sides: a method that suddenly loses fewer answers is another method. Three faults show that they are tight:
each must fail the check that is named for it.
"""

import json

import pytest

from eval.synthetic.answers.campaign import checkpoint_hash
from eval.synthetic.answers.guard import ALWAYS, BANDS, CHECKPOINT, CHECKS, FRAMES, Guard
from eval.synthetic.world.dataset import make_split
from tests.eval.synthetic.answers.faults import FAULTS

BOUNDS = BANDS
REMEASURE = "python -m tests.eval.synthetic.answers.faults outputs/synthvid tests/eval/synthetic/answers/guard.json"
pytestmark = pytest.mark.skipif(
    not (CHECKPOINT / "config.json").is_file(),
    reason="checkpoints/tiny is absent: bash scripts/train_tiny.sh makes it",
)


@pytest.fixture(scope="module")
def recorded() -> dict:
    assert BOUNDS.is_file(), f"the bounds were not measured: {REMEASURE}"
    return json.loads(BOUNDS.read_text())


@pytest.fixture(scope="module")
def guard(tmp_path_factory) -> Guard:
    data = tmp_path_factory.mktemp("synthvid")
    make_split(data, "guard")
    return Guard(CHECKPOINT, data)


def test_the_bounds_belong_to_this_checkpoint(recorded: dict) -> None:
    found = checkpoint_hash(CHECKPOINT)
    assert recorded["checkpoint"] == found, f"guard.json was measured on another checkpoint: {REMEASURE}"
    assert recorded["frames"] == FRAMES
    assert {ALWAYS, *recorded["shown_by"].values()} == set(recorded["lost"]) <= set(CHECKS)
    assert set(recorded["shown_by"]) == set(FAULTS)


def test_all_tokens_answer_as_before(guard: Guard, recorded: dict) -> None:
    assert len(guard.full) == recorded["checks"][ALWAYS]["questions"]
    assert sum(answer.right for answer in guard.full) >= recorded["least_full"]


def test_compression_costs_as_many_answers_as_it_did(guard: Guard, recorded: dict) -> None:
    for name, (least, most) in recorded["lost"].items():
        found = guard.count(CHECKS[name])
        assert found["questions"] == recorded["checks"][name]["questions"]
        assert least <= found["lost"] <= most, (name, found)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_guard_fails_with(guard: Guard, recorded: dict, fault: str) -> None:
    name = recorded["shown_by"][fault]
    with FAULTS[fault]():
        found = guard.count(CHECKS[name])
    least, most = recorded["lost"][name]
    assert not least <= found["lost"] <= most, found
