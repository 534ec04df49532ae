"""How sure a score is, and whether two methods differ: questions about one video are not independent.

Every resampling unit is a video (a cluster). A score that is a mean of sub-scores (MVBench: the plain mean over its 20
subtasks) is described by ``strata``, the subtask of each question. All scores here are shares in [0, 1], not percent.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from llava.errors import InputError

RESAMPLES = 5000
LEVEL = 0.95
FEW_CLUSTERS = 30  # below it Student's t takes the place of the normal distribution and of the bootstrap


@dataclass(frozen=True)
class Grouped:
    """Questions sorted into clusters (videos) and strata (subtasks).

    Attributes:
        cluster: number of each question's cluster, (questions,).
        stratum: number of each question's stratum, (questions,).
        clusters: how many clusters there are.
        strata: how many strata there are.
    """

    cluster: np.ndarray
    stratum: np.ndarray
    clusters: int
    strata: int

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` (questions,) in each cell, (clusters, strata)."""
        cells = self.cluster * self.strata + self.stratum
        return np.bincount(cells, values, self.clusters * self.strata).reshape(self.clusters, self.strata)


def group(clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None) -> Grouped:
    """Number the clusters and strata in their order of appearance.

    Raises:
        InputError: no question, or as many strata entries as there are not questions.
    """
    if not len(clusters):
        raise InputError("there are 0 questions; a score needs at least 1")
    kinds = [0] * len(clusters) if strata is None else strata
    if len(kinds) != len(clusters):
        raise InputError(f"there are {len(kinds)} strata for {len(clusters)} questions; give one for each question")
    cluster, stratum = _numbers(clusters), _numbers(kinds)
    return Grouped(cluster, stratum, int(cluster.max()) + 1, int(stratum.max()) + 1)


def clustered_mean(
    values: Sequence[float], clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None
) -> tuple[float, float]:
    """Mean of the strata's means, and its standard error with questions of one cluster taken together.

    The error is the usual cluster-robust one, the root of G/(G-1) times the sum over the G clusters of the squared
    weighted sum of their residuals, a residual being the distance from the mean of the question's own stratum. With one
    stratum and one question per cluster it is the textbook s/sqrt(n).

    Args:
        values: a score for each question, (questions,).
        clusters: the video of each question, (questions,).
        strata: the subtask of each question; None: one for all.

    Returns:
        Mean and standard error; the error is NaN with a single cluster.

    Raises:
        InputError: no question, or lengths that differ.
    """
    scores = _values(values, clusters)
    grouped = group(clusters, strata)
    counts = np.bincount(grouped.stratum, minlength=grouped.strata)
    means = np.bincount(grouped.stratum, scores, grouped.strata) / counts
    mean = float(means.mean())
    if grouped.clusters < 2:
        return mean, math.nan
    weighted = (scores - means[grouped.stratum]) / (counts[grouped.stratum] * grouped.strata)
    per_cluster = np.bincount(grouped.cluster, weighted, grouped.clusters)
    factor = grouped.clusters / (grouped.clusters - 1)
    return mean, float(math.sqrt(factor * np.square(per_cluster).sum()))


def quantile(probability: float, clusters: int) -> float:
    """Standard errors below which a clustered mean lies with a probability: Student's t where clusters are few."""
    known = stats.t(clusters - 1) if clusters < FEW_CLUSTERS else stats.norm
    return float(known.ppf(probability))


def interval(mean: float, error: float, clusters: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a clustered mean; NaN with a single cluster."""
    if clusters < 2:
        return math.nan, math.nan
    reach = quantile((1 + level) / 2, clusters) * error
    return mean - reach, mean + reach


def ratio_error(
    numerator: Sequence[float],
    denominator: Sequence[float],
    ratio: float,
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
) -> float:
    """Clustered standard error of ``mean(numerator) - ratio * mean(denominator)``, both over the same questions.

    Divided by the mean of the denominator it is the error of the ratio of the two (to first order).

    Raises:
        InputError: no question, or lengths that differ.
    """
    residual = _values(numerator, clusters) - ratio * _values(denominator, clusters)
    return clustered_mean(residual.tolist(), clusters, strata)[1]


def paired_p(
    method_correct: Sequence[float],
    vanilla_correct: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
) -> float:
    """Two-sided p-value of the difference of two methods on the same questions.

    McNemar's exact test where every video has one question, all answers are right or wrong and weigh alike; it takes
    questions as independent, so elsewhere the clustered difference over its standard error decides. NaN with a single
    cluster.

    Raises:
        InputError: no question, or lengths that differ.
    """
    method, vanilla = _values(method_correct, clusters), _values(vanilla_correct, clusters)
    grouped = group(clusters, strata)
    whole = not {*method.tolist(), *vanilla.tolist()} - {0.0, 1.0}
    if whole and grouped.strata == 1 and grouped.clusters == len(method):
        return mcnemar(method.tolist(), vanilla.tolist())
    difference, error = clustered_mean((method - vanilla).tolist(), clusters, strata)
    if grouped.clusters < 2:
        return math.nan
    if error == 0:
        return 1.0 if difference == 0 else 0.0
    known = stats.t(grouped.clusters - 1) if grouped.clusters < FEW_CLUSTERS else stats.norm
    return float(2 * known.sf(abs(difference) / error))


def paired_difference(
    method_correct: Sequence[float],
    vanilla_correct: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of two methods on the same questions, with an interval that takes a video's questions together.

    From 30 clusters on the interval is that of :func:`bootstrap_difference`; with fewer it is Student's.

    Args:
        method_correct: score of the method on each question, (questions,).
        vanilla_correct: score of the reference on the same questions in the same order, (questions,).
        clusters: the video of each question, (questions,).
        strata: the subtask of each question when the score is a mean of subtask scores; None: one for all.
        resamples: how often the clusters are drawn again.
        level: of the interval, in (0, 1).
        seed: of the draws; the same seed gives the same interval.

    Returns:
        Difference (method minus reference, as a share), and the interval's ends; these are NaN with a single cluster.

    Raises:
        InputError: no question, or lengths that differ.
    """
    known = group(clusters, strata).clusters
    if known >= FEW_CLUSTERS:
        return bootstrap_difference(
            method_correct, vanilla_correct, clusters, strata, resamples=resamples, level=level, seed=seed
        )
    differences = _values(method_correct, clusters) - _values(vanilla_correct, clusters)
    difference, error = clustered_mean(differences.tolist(), clusters, strata)
    return difference, *interval(difference, error, known, level)


def bootstrap_difference(
    method_correct: Sequence[float],
    vanilla_correct: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference of two methods on the same questions, with a percentile bootstrap interval over clusters.

    Arguments, results and errors are those of :func:`paired_difference`; with few clusters it covers too little.
    """
    differences = _values(method_correct, clusters) - _values(vanilla_correct, clusters)
    grouped = group(clusters, strata)
    sums, counts = grouped.sums(differences), grouped.sums(np.ones(len(differences)))

    def statistic(drawn: np.ndarray, axis: int) -> np.ndarray:
        """Mean of the strata's means for clusters drawn along the last axis."""
        rows = drawn.reshape(-1, drawn.shape[-1])
        offsets = np.arange(len(rows))[:, None] * grouped.clusters
        times = np.bincount((rows + offsets).ravel(), minlength=len(rows) * grouped.clusters)
        times = times.reshape(len(rows), grouped.clusters)
        seen = times @ counts
        means = np.divide(times @ sums, seen, out=np.full(seen.shape, np.nan), where=seen > 0)
        return np.nanmean(means, axis=-1).reshape(drawn.shape[:-1])

    everything = np.arange(grouped.clusters)
    difference = float(statistic(everything, axis=-1))
    if grouped.clusters < 2:
        return difference, math.nan, math.nan
    interval = stats.bootstrap(
        (everything,),
        statistic,
        n_resamples=resamples,
        batch=256,
        vectorized=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return difference, float(interval.low), float(interval.high)


def mcnemar(method_correct: Sequence[bool], vanilla_correct: Sequence[bool]) -> float:
    """Two-sided p-value of McNemar's exact test: are the questions that only one of the two gets right split evenly?

    It takes questions as independent and rejects too often where they share a video: use :func:`paired_p`, which
    chooses it where every video has one question.

    Raises:
        InputError: lengths that differ, or an answer that is neither right nor wrong.
    """
    method, vanilla = _values(method_correct, vanilla_correct), _values(vanilla_correct, method_correct)
    wrong = sorted({*method.tolist(), *vanilla.tolist()} - {0.0, 1.0})
    if wrong:
        raise InputError(f"a score is {wrong[0]!r}; McNemar's test needs right (1) or wrong (0) for each question")
    only_method = int((method > vanilla).sum())
    discordant = only_method + int((vanilla > method).sum())
    return float(stats.binomtest(only_method, discordant, 0.5).pvalue) if discordant else 1.0


def _numbers(labels: Sequence[Hashable]) -> np.ndarray:
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(label, len(known)) for label in labels])


def _values(values: Sequence[float], others: Sequence[Hashable]) -> np.ndarray:
    if len(values) != len(others):
        raise InputError(f"there are {len(values)} scores for {len(others)} questions; give one for each question")
    return np.asarray(values, dtype=float)
