"""Standard errors, paired differences and McNemar's test against naive restatements and hand counts."""

import itertools
import math
import random
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.instruments.significance import (
    bootstrap_difference,
    clustered_mean,
    interval,
    mcnemar,
    paired_difference,
    paired_p,
    ratio_error,
)
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
    difference, low, high = bootstrap_difference(method, vanilla, videos, resamples=20000)
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


def test_few_videos_get_student_s_interval() -> None:
    values, videos = [1, 0, 1, 1, 0, 1, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    mean, error = clustered_mean(values, videos)
    assert interval(mean, error, 5) == pytest.approx((mean - 2.776445 * error, mean + 2.776445 * error))
    assert interval(mean, error, 40) == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))
    found = paired_difference(values, [0] * 10, videos)
    assert found == pytest.approx((mean, *interval(mean, error, 5)))
    assert all(math.isnan(end) for end in interval(mean, error, 1))


def test_p_is_mcnemar_s_only_where_every_video_has_one_question() -> None:
    method, vanilla = [1, 1, 1, 1, 0, 1] * 10, [0, 1, 0, 1, 1, 1] * 10
    assert paired_p(method, vanilla, range(60)) == mcnemar(method, vanilla)
    videos = [number // 2 for number in range(60)]
    gap, error = clustered_mean([a - b for a, b in zip(method, vanilla, strict=True)], videos)
    assert paired_p(method, vanilla, videos) == pytest.approx(math.erfc(abs(gap) / error / math.sqrt(2)))
    # the same questions asked three times each: nothing is known better
    thrice = [[value for value in values for _ in range(3)] for values in (method, vanilla, videos)]
    assert paired_p(*thrice) == pytest.approx(paired_p(method, vanilla, videos))
    assert mcnemar(*thrice[:2]) < mcnemar(method, vanilla) / 10
    assert paired_p(method, method, videos) == 1
    assert math.isnan(paired_p([1, 0], [0, 1], "aa"))


def test_error_of_a_ratio_against_the_jackknife() -> None:
    draw = np.random.default_rng(5)
    full = draw.random(400) < 0.6
    method = np.where(draw.random(400) < 0.1, draw.random(400) < 0.5, full).astype(float)
    videos = np.arange(400) // 2
    ratio = method.mean() / full.mean()
    left = [method[videos != one].mean() / full[videos != one].mean() for one in range(200)]
    jackknife = math.sqrt(199 / 200 * sum((value - np.mean(left)) ** 2 for value in left))
    error = ratio_error(method.tolist(), full.tolist(), ratio, videos.tolist()) / full.mean()
    assert error == pytest.approx(jackknife, rel=0.02)
    assert error < 0.5 * clustered_mean(method.tolist(), videos.tolist())[1] / full.mean()  # not that of the numerator


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clustered_mean([], []), "0 questions"),
        (lambda: clustered_mean([1], [1, 2]), "1 scores for 2 questions"),
        (lambda: clustered_mean([1, 1], [1, 2], [1]), "1 strata for 2 questions"),
        (lambda: paired_difference([1], [1, 0], [1, 2]), "1 scores for 2 questions"),
        (lambda: mcnemar([1, 0], [1]), "2 scores for 1 questions"),
        (lambda: mcnemar([0.5], [1]), "0.5"),
    ],
)
def test_refusals(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()
