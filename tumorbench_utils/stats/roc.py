"""Areas under ROC curves: their bootstrap, their comparison, and decision curves."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats as sps

from tumorbench_utils.stats.checks import checked, checked_level, numbers


def auc(y, score) -> float:
    """Return the area under the ROC curve, ties counted half (Mann and Whitney's U).

    Parameters
    ----------
    y : array-like, shape (n,)
        Labels 0 and 1.
    score : array-like, shape (n,)
        Higher means that label 1 is more likely. Two Series are joined by their index.

    Raises
    ------
    ValueError
        If lengths or indexes differ, a value is missing or infinite, or one class is absent.
    """
    labels, (score,), _ = checked(y, {"score": score})
    positives = int(labels.sum())
    rank_sum = sps.rankdata(score)[labels == 1].sum()
    u = rank_sum - positives * (positives + 1) / 2
    return float(u / (positives * (len(labels) - positives)))


class WeightedAUC:
    """The AUC of one vector of scores under many vectors of case weights.

    Sorting is done once; a set of weights costs two passes. A bootstrap resample is a vector of
    counts, so a bootstrap never copies cases.

    Parameters
    ----------
    y : ndarray of int, shape (n,)
        Checked labels.
    score : ndarray of float, shape (n,)
    """

    def __init__(self, y: np.ndarray, score: np.ndarray):
        self.order = np.argsort(score, kind="stable")
        ordered = score[self.order]
        self.positive = y[self.order] == 1
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """Return the AUC per row of `weights`, shape (m, n); NaN where a class has no weight."""
        weights = weights[:, self.order].astype(np.float64)
        positive = np.add.reduceat(weights * self.positive, self.starts, axis=1)
        negative = np.add.reduceat(weights * ~self.positive, self.starts, axis=1)
        below = np.cumsum(negative, axis=1) - negative / 2
        pairs = positive.sum(axis=1) * negative.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(pairs > 0, (positive * below).sum(axis=1) / pairs, np.nan)


def resample_counts(codes: np.ndarray, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield blocks of counts, shape (m, cases): how often each case stands in a resample.

    Whole groups are drawn with replacement, as many as there are.

    Parameters
    ----------
    codes : ndarray of int, shape (cases,)
        Group of each case, 0 to ``groups - 1``.
    n : int
        Number of resamples.
    seed : int
    """
    if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
        raise ValueError(f"the number of resamples must be a whole number above 0, not {n!r}")
    rng = np.random.default_rng(seed)
    total = int(codes.max()) + 1
    block = max(1, 2_000_000 // max(total, len(codes)))
    for first in range(0, n, block):
        rows = min(block, n - first)
        drawn = rng.integers(0, total, size=(rows, total)) + total * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * total).reshape(rows, total)
        yield counts[:, codes]


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values; NaN marks resamples without a value.

    Raises
    ------
    ValueError
        If more than half of the resamples have no value.
    """
    level = checked_level(level)
    valid = values[np.isfinite(values)]
    if 2 * len(valid) < len(values):
        raise ValueError(
            f"{len(values) - len(valid)} of {len(values)} resamples hold one class only; there "
            "are too few cases or groups of one class for a bootstrap"
        )
    low, high = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_auc(
    y, score, groups=None, n: int = 2000, seed: int = 0, *, level: float = 0.95
) -> tuple[float, float, float]:
    """Return an AUC and its percentile bootstrap interval, whole groups resampled together.

    Parameters
    ----------
    y, score
        As for :func:`auc`.
    groups : array-like, shape (n,), optional
        Patient of each lesion. Lesions of one patient are not independent; without groups every
        lesion is resampled on its own.
    n : int
        Number of resamples. Those that hold one class only are left out.
    seed : int
    level : float

    Returns
    -------
    auc, low, high : float

    Raises
    ------
    ValueError
        As :func:`auc`; also for missing groups, a single group, or if more than half of the
        resamples hold one class only.
    """
    labels, (score,), codes = checked(y, {"score": score}, groups)
    area = WeightedAUC(labels, score)
    values = np.concatenate([area(counts) for counts in resample_counts(codes, n, seed)])
    value = area(np.ones((1, len(labels))))[0]
    return float(value), *percentile_interval(values, level)


def resampled_split_auc(
    tests: list[tuple[np.ndarray, np.ndarray, np.ndarray]], codes: np.ndarray, n: int, seed: int
) -> np.ndarray:
    """Bootstrap a mean AUC over splits: whole patients resampled, the fitted models kept.

    A patient who stands in the test rows of several splits is drawn into all of them or none. So
    the correlation of the splits through shared test cases is kept, and several scores of the same
    cases stay paired. What varies with the training rows is not in it.

    Parameters
    ----------
    tests : list of (rows, y, scores)
        One per split: positions of the test cases, their labels of both classes, and their scores,
        shape (n_test,) each for rows and labels and (n_test, m) for m scores.
    codes : ndarray of int, shape (cases,)
        Patient of every case, 0 to ``patients - 1``.
    n, seed : int

    Returns
    -------
    ndarray, shape (n, m)
        NaN where a resample leaves no split with both classes.
    """
    areas = [[WeightedAUC(y, column) for column in scores.T] for _, y, scores in tests]
    blocks = []
    for counts in resample_counts(codes, n, seed):
        values = [
            np.column_stack([area(counts[:, rows]) for area in columns])
            for columns, (rows, _, _) in zip(areas, tests, strict=True)
        ]
        valid = np.isfinite(values)
        with np.errstate(invalid="ignore", divide="ignore"):
            blocks.append(np.where(valid, values, 0).sum(axis=0) / valid.sum(axis=0))
    return np.concatenate(blocks)


def _placements(labels: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Share of the other class that each case is ordered rightly against; ties count half."""
    places = np.empty(len(labels))
    for this, other in ((1, 0), (0, 1)):
        reference = np.sort(score[labels == other])
        own = score[labels == this]
        below = np.searchsorted(reference, own, "left") + np.searchsorted(reference, own, "right")
        share = below / (2 * len(reference))
        places[labels == this] = share if this == 1 else 1 - share
    return places


def delong_test(y, s1, s2, *, groups=None) -> tuple[float, float, float]:
    """Compare two correlated AUCs after DeLong et al. (1988).

    With `groups` the variance is that of Obuchowski (1997) for clustered data, which equals
    DeLong's when every group holds one case.

    Parameters
    ----------
    y : array-like, shape (n,)
        Labels 0 and 1.
    s1, s2 : array-like, shape (n,)
        Two scores of the same cases; higher means that label 1 is more likely.
    groups : array-like, shape (n,), optional
        Patient of each lesion.

    Returns
    -------
    diff : float
        AUC of `s1` minus AUC of `s2`.
    z : float
        Difference over its standard error. 0 if the two scores order all cases alike; infinite if
        the AUCs differ but the estimated variance is zero (both orders are perfect).
    p : float
        Two-sided p value from the normal distribution.

    Raises
    ------
    ValueError
        As :func:`auc`; also if a class has fewer than two cases (or stands in one group only).
    """
    labels, (s1, s2), codes = checked(y, {"s1": s1, "s2": s2}, groups)
    difference = _placements(labels, s1) - _placements(labels, s2)
    diff = difference[labels == 1].mean()
    centred = difference - diff
    total = codes.max() + 1
    sums, counts = {}, {}
    for this in (1, 0):
        own = labels == this
        sums[this] = np.bincount(codes[own], weights=centred[own], minlength=total)
        counts[this] = np.count_nonzero(np.bincount(codes[own], minlength=total))
        if counts[this] < 2:
            what = "cases" if groups is None else "groups with cases"
            raise ValueError(f"DeLong's test needs at least two {what} of label {this}")
    positives, negatives = labels.sum(), (labels == 0).sum()
    variance = (
        counts[1] / (counts[1] - 1) * np.sum(sums[1] ** 2) / positives**2
        + counts[0] / (counts[0] - 1) * np.sum(sums[0] ** 2) / negatives**2
        + 2 * total / (total - 1) * np.sum(sums[1] * sums[0]) / (positives * negatives)
    )
    # Two orders that differ nowhere leave rounding errors of this size, not a variance.
    if variance <= 1e-20:
        if abs(diff) < 1e-12:
            return 0.0, 0.0, 1.0
        return float(diff), float(np.copysign(np.inf, diff)), 0.0
    z = diff / np.sqrt(variance)
    return float(diff), float(z), float(2 * sps.norm.sf(abs(z)))


def net_benefit(y, probability, thresholds) -> pd.DataFrame:
    """Return the decision curve of a model (Vickers and Elkin 2006).

    At a threshold t a patient is treated if the probability of label 1 is at least t; a false
    positive then costs t / (1 - t) true positives.

    Parameters
    ----------
    y : array-like, shape (n,)
        Labels; 1 is what treatment is for.
    probability : array-like, shape (n,)
        Between 0 and 1.
    thresholds : array-like, shape (m,)
        Between 0 and 1, ends excluded.

    Returns
    -------
    DataFrame
        ``threshold``, ``model`` (net benefit per patient), ``treat_all``, ``treat_none`` (0).

    Raises
    ------
    ValueError
        As :func:`auc`; also for probabilities or thresholds out of range.
    """
    labels, (probability,), _ = checked(y, {"probability": probability})
    thresholds = numbers(thresholds, "thresholds")
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError(
            "probabilities must lie between 0 and 1; a plain score has no decision curve"
        )
    if thresholds.min() <= 0 or thresholds.max() >= 1:
        raise ValueError("thresholds must lie between 0 and 1, both excluded")
    odds = thresholds / (1 - thresholds)
    treated = probability[:, None] >= thresholds
    share = labels.mean()
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "model": (treated & (labels[:, None] == 1)).mean(axis=0)
            - (treated & (labels[:, None] == 0)).mean(axis=0) * odds,
            "treat_all": share - (1 - share) * odds,
            "treat_none": 0.0,
        }
    )
