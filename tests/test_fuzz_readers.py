"""A slice of the random damage of :mod:`tests.fuzz_readers`, and that it would see what it is there to see."""

import random

import pytest

from llava.errors import InputError
from tests.fuzz_readers import fuzz, verdict


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_inputs_give_a_result_or_one_line(seed: int) -> None:
    outcome = fuzz(210, seed)
    assert outcome.failures == []
    assert all(outcome.refused[name] > 0 for name in outcome.tried if name != "answer log")  # it tells, and goes on
    assert sum(outcome.refused.values()) < 0.98 * sum(outcome.tried.values())  # some damage is none


def test_the_same_seed_gives_the_same_damage() -> None:
    assert fuzz(35, 3) == fuzz(35, 3)
    assert fuzz(35, 3).refused != fuzz(35, 4).refused


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("x"), "KeyError"),
        (RecursionError("deep"), "RecursionError"),
        (InputError("two\nlines"), "message of 9 characters"),
        (InputError("x" * 5000), "message of 5000"),
    ],
)
def test_what_counts_as_a_failure(error: Exception, words: str) -> None:
    def read(draw: random.Random) -> None:
        raise error

    refused, wrong = verdict(read, random.Random(0))
    assert refused == isinstance(error, InputError)
    assert wrong is not None
    assert words in wrong
    assert verdict(lambda draw: None, random.Random(0)) == (False, None)
