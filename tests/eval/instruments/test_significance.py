"""Standard errors, paired differences and McNemar's test against naive restatements and hand counts."""

import itertools
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.instruments.significance import binomial_interval, clustered_mean, mcnemar, paired_difference
from llava.errors import InputError

QUESTIONS = st.lists(
    st.tuples(st.booleans(), st.booleans(), st.integers(0, 5), st.integers(0, 2)), min_size=2, max_size=40
)


def naive_clustered_mean(values, clusters, strata):
    by_stratum = defaultdict(list)
    for value, stratum in zip(values, strata, strict=True):
        by_stratum[stratum].append(value)
    means = {stratum: sum(members) / len(members) for stratum, members in by_stratum.items()}
    total = defaultdict(float)
    for value, cluster, stratum in zip(values, clusters, strata, strict=True):
        total[cluster] += (value - means[stratum]) / len(by_stratum[stratum]) / len(means)
    groups = len(total)
    spread = sum(part**2 for part in total.values())
    return sum(means.values()) / len(means), math.sqrt(groups / (groups - 1) * spread) if groups > 1 else math.nan


@given(QUESTIONS)
@settings(max_examples=60, deadline=None)
def test_clustered_mean_against_loops(questions) -> None:
    right, _, clusters, strata = zip(*questions, strict=True)
    mean, error = clustered_mean(right, clusters, strata)
    expected = naive_clustered_mean(right, clusters, strata)
    assert mean == pytest.approx(expected[0])
    assert error == pytest.approx(expected[1], nan_ok=True)


def test_one_question_per_video_is_the_textbook_error() -> None:
    values = [1, 0, 0, 1, 1, 0, 1]
    assert clustered_mean(values, range(7))[1] == pytest.approx(np.std(values, ddof=1) / math.sqrt(7))


def test_repeated_questions_about_a_video_add_no_certainty() -> None:
    values = [1, 0, 0, 1, 1, 0, 1]
    tripled = [value for value in values for _ in range(3)]
    videos = [video for video in range(7) for _ in range(3)]
    assert clustered_mean(tripled, videos) == pytest.approx(clustered_mean(values, range(7)))


def test_a_stratum_counts_once_whatever_its_size() -> None:
    values, strata = [1, 1, 1, 1, 0], ["a", "a", "a", "a", "b"]
    assert clustered_mean(values, range(5), strata)[0] == 0.5
    assert paired_difference(values, [0] * 5, range(5), strata, resamples=50)[0] == 0.5


def test_bootstrap_against_every_resample() -> None:
    """Three videos have 27 equally likely resamples: the interval must be the percentiles of those 27 means."""
    method, vanilla = [1, 1, 0, 1, 0, 0], [0, 1, 1, 0, 0, 0]
    videos = ["x", "x", "y", "z", "z", "z"]
    differences = {
        name: [a - b for a, b, v in zip(method, vanilla, videos, strict=True) if v == name] for name in "xyz"
    }
    means = []
    for draw in itertools.product("xyz", repeat=3):
        parts = [part for name in draw for part in differences[name]]
        means.append(sum(parts) / len(parts))
    difference, low, high = paired_difference(method, vanilla, videos, resamples=20000)
    assert difference == pytest.approx(1 / 6)
    lowest, highest = np.percentile(means, [2.5, 97.5], method="inverted_cdf")
    assert (low, high) == pytest.approx((lowest, highest), abs=1e-9)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draw = random.Random(3)
    covered = 0
    for trial in range(100):
        shift = [draw.gauss(0, 0.2) for _ in range(30)]
        videos = [video for video in range(30) for _ in range(3)]
        method = [float(draw.random() < 0.6 + shift[video]) for video in videos]
        vanilla = [float(draw.random() < 0.5) for _ in videos]
        _, low, high = paired_difference(method, vanilla, videos, resamples=400, seed=trial)
        covered += low <= 0.1 <= high
    assert 85 <= covered <= 100


@given(QUESTIONS)
@settings(max_examples=20, deadline=None)
def test_the_difference_lies_in_its_interval_and_changes_sign_with_the_order(questions) -> None:
    method, vanilla, clusters, strata = zip(*questions, strict=True)
    difference, low, high = paired_difference(method, vanilla, clusters, resamples=500)
    assert difference == pytest.approx(np.mean(method) - np.mean(vanilla))
    if len(set(clusters)) > 1:
        assert low - 1e-12 <= high
    assert paired_difference(vanilla, method, clusters, resamples=500)[0] == pytest.approx(-difference)
    mean = clustered_mean(method, clusters, strata)[0] - clustered_mean(vanilla, clusters, strata)[0]
    assert paired_difference(method, vanilla, clusters, strata, resamples=10)[0] == pytest.approx(mean)


def test_equal_methods_differ_by_nothing_and_one_video_tells_nothing() -> None:
    assert paired_difference([1, 0, 1], [1, 0, 1], "abc") == (0.0, 0.0, 0.0)
    difference, low, high = paired_difference([1, 1], [0, 1], "aa")
    assert difference == 0.5
    assert math.isnan(low)
    assert math.isnan(high)
    assert math.isnan(clustered_mean([1, 0], "aa")[1])


def test_the_same_seed_gives_the_same_interval() -> None:
    right = [random.Random(0).random() < 0.5 for _ in range(50)]
    other = [not value if index % 3 == 0 else value for index, value in enumerate(right)]
    assert paired_difference(right, other, range(50)) == paired_difference(right, other, range(50))


@pytest.mark.parametrize(("only_method", "only_vanilla"), [(0, 0), (1, 0), (5, 5), (9, 2), (3, 14)])
def test_mcnemar_against_the_sum_of_binomial_terms(only_method: int, only_vanilla: int) -> None:
    both = [(1, 1)] * 4 + [(0, 0)] * 3
    pairs = both + [(1, 0)] * only_method + [(0, 1)] * only_vanilla
    total = only_method + only_vanilla
    tail = sum(math.comb(total, k) for k in range(min(only_method, only_vanilla) + 1)) / 2**total
    assert mcnemar(*zip(*pairs, strict=True)) == pytest.approx(min(1.0, 2 * tail))


def test_binomial_interval_against_wilson_s_formula() -> None:
    share, questions, z = 0.584, 2500, 1.959963984540054
    centre = (share + z * z / (2 * questions)) / (1 + z * z / questions)
    half = z * math.sqrt(share * (1 - share) / questions + z * z / (4 * questions**2)) / (1 + z * z / questions)
    assert binomial_interval(share, questions) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clustered_mean([], []), "0 questions"),
        (lambda: clustered_mean([1], [1, 2]), "1 scores for 2 questions"),
        (lambda: clustered_mean([1, 1], [1, 2], [1]), "1 strata for 2 questions"),
        (lambda: paired_difference([1], [1, 0], [1, 2]), "1 scores for 2 questions"),
        (lambda: mcnemar([1, 0], [1]), "2 scores for 1 questions"),
        (lambda: mcnemar([0.5], [1]), "0.5"),
        (lambda: binomial_interval(58.4, 100), "58.4"),
        (lambda: binomial_interval(0.5, 0), "0 questions"),
    ],
)
def test_refusals(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
