"""Statistics of a benchmark: areas under ROC curves, their intervals, and comparisons of models.

Scores point towards label 1: a higher score means that label 1 is more likely. Higher values of a
performance are better throughout. Nothing here knows cohorts or models.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as sps


class FriedmanResult(NamedTuple):
    """What :func:`friedman_nemenyi` found.

    Attributes
    ----------
    statistic : float
        Friedman's chi-squared, corrected for ties.
    p : float
        Its p value from the chi-squared distribution with ``models - 1`` degrees of freedom.
    mean_ranks : Series, index = models
        Mean rank over the cohorts; 1 is best. Sorted, the best first.
    critical_difference : float
        Nemenyi's: two models differ if their mean ranks lie at least this far apart.
    """

    statistic: float
    p: float
    mean_ranks: pd.Series
    critical_difference: float


# --------------------------------------------------------------------------------- checked input


def binary_labels(y, name: str = "y") -> np.ndarray:
    """Return labels as an integer array of 0 and 1 that holds both.

    Parameters
    ----------
    y : array-like, shape (n,)
        0 and 1 as integers, floats, booleans or pandas' nullable types.
    name : str
        What the labels are called in error messages.

    Raises
    ------
    ValueError
        If there are missing values, other values than 0 and 1, or one class only.
    """
    if np.ndim(y) != 1:
        raise ValueError(f"{name} must have one dimension, not {np.ndim(y)}")
    labels = pd.Series(y).reset_index(drop=True)
    if labels.empty:
        raise ValueError(f"{name} is empty")
    if labels.isna().any():
        raise ValueError(
            f"{name} has {int(labels.isna().sum())} missing labels of {len(labels)}; leave those "
            "rows out first"
        )
    if labels.dtype == object and not labels.map(lambda v: isinstance(v, int | float)).all():
        raise ValueError(f"{name} must hold numbers 0 and 1, not {labels.iloc[0]!r}")
    found = set(labels.unique().tolist())
    if not found <= {0, 1}:
        shown = sorted(map(str, found))[:5]
        raise ValueError(f"{name} must hold 0 and 1 only; it holds {', '.join(shown)}")
    if len(found) < 2:
        raise ValueError(
            f"{name} holds one class only ({len(labels)} times {int(labels.iloc[0])}); an area "
            "under the ROC curve needs both"
        )
    return labels.to_numpy(dtype=np.int64)


def _numbers(values, name: str, length: int | None = None) -> np.ndarray:
    """Return a finite float64 vector, or say what is wrong with it."""
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must hold numbers: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} values where {length} are needed")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ValueError(
            f"{name} has {bad.size} values that are missing or infinite, the first at position "
            f"{bad[0]}"
        )
    return array


def _follow(labels, other, name: str):
    """Bring a Series into the order of the labels if both carry an index; never by position."""
    if not (isinstance(labels, pd.Series) and isinstance(other, pd.Series)):
        return other
    if labels.index.equals(other.index):
        return other
    if not labels.index.is_unique or not other.index.is_unique:
        raise ValueError(f"{name} and y have different indexes with repeated entries")
    apart = labels.index.symmetric_difference(other.index)
    if len(apart):
        raise ValueError(
            f"{name} and y have different indexes: {len(apart)} entries stand in one only, for "
            f"example {apart[0]!r}"
        )
    return other.reindex(labels.index)


def _checked(y, scores: dict, groups=None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    labels = binary_labels(y)
    arrays = [_numbers(_follow(y, s, name), name, len(labels)) for name, s in scores.items()]
    if groups is None:
        return labels, arrays, np.arange(len(labels))
    groups = pd.Series(np.asarray(_follow(y, groups, "groups")))
    if len(groups) != len(labels):
        raise ValueError(f"groups has {len(groups)} values where {len(labels)} are needed")
    if groups.isna().any():
        raise ValueError(f"groups has {int(groups.isna().sum())} missing values")
    codes = pd.factorize(groups)[0]
    if codes.max() == 0:
        raise ValueError(f"all rows are of one group, {groups.iloc[0]!r}; at least two are needed")
    return labels, arrays, codes


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level!r}")
    return float(level)


# ------------------------------------------------------------------- area under the ROC curve


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
    labels, (score,), _ = _checked(y, {"score": score})
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
    level = _level(level)
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
    labels, (score,), codes = _checked(y, {"score": score}, groups)
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
    labels, (s1, s2), codes = _checked(y, {"s1": s1, "s2": s2}, groups)
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


# ------------------------------------------------------------------------- repeated splits


def published_interval(scores) -> tuple[float, float]:
    """Return the interval of the published benchmark: mean ± 1.96 sd / sqrt(n).

    It treats the splits as independent. They share most of their cases, so it is far too narrow;
    see :func:`corrected_interval`. The standard deviation has n - 1 in its denominator: with n the
    sums of squares of the published AUCs would not be whole multiples of their smallest step
    (``data/published/README.md``).
    """
    scores = _numbers(scores, "scores")
    if len(scores) < 2:
        raise ValueError(f"an interval needs the scores of at least two splits, not {len(scores)}")
    half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    return float(scores.mean() - half), float(scores.mean() + half)


def corrected_error(sd, n_splits: int, n_train: int, n_test: int):
    """Return the standard error of a mean over repeated splits after Nadeau and Bengio (2003).

    Parameters
    ----------
    sd : float or array-like
        Standard deviation over the splits, with ``n_splits - 1`` in its denominator.
    n_splits, n_train, n_test : int
        Number of splits and the cases on either side of one.
    """
    for name, value in (("n_splits", n_splits), ("n_train", n_train), ("n_test", n_test)):
        if not np.isscalar(value) or not np.isfinite(value) or value <= 0:
            raise ValueError(f"{name} must be a number above 0, not {value!r}")
    if n_splits < 2:
        raise ValueError("a corrected interval needs the scores of at least two splits, not 1")
    return np.asarray(sd) * np.sqrt(1 / n_splits + n_test / n_train)


def corrected_interval(
    scores, n_train: int, n_test: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a mean over repeated random splits, corrected for their overlap.

    Nadeau and Bengio (2003): the variance of the mean is ``(1/J + n_test/n_train) s²`` for J
    splits with sample variance s², and the quantile is Student's with J - 1 degrees of freedom.

    Parameters
    ----------
    scores : array-like, shape (J,)
        One score per split.
    n_train, n_test : int
        Cases that a split trains on and tests on.
    level : float

    Returns
    -------
    low, high : float

    Raises
    ------
    ValueError
        If there are fewer than two scores, a score is missing, or a size is not positive.
    """
    scores = _numbers(scores, "scores")
    error = corrected_error(
        scores.std(ddof=1) if len(scores) > 1 else 0, len(scores), n_train, n_test
    )
    half = sps.t.ppf((1 + _level(level)) / 2, len(scores) - 1) * error
    return float(scores.mean() - half), float(scores.mean() + half)


# --------------------------------------------------------------------------- many comparisons


def holm(p_values):
    """Return p values adjusted for their number after Holm (1979).

    Parameters
    ----------
    p_values : array-like, shape (n,)

    Returns
    -------
    ndarray or Series, shape (n,)
        Adjusted p values in the given order; a Series if one was given.

    Raises
    ------
    ValueError
        If there are none, or one is missing or outside 0 to 1.
    """
    p = _numbers(p_values, "p_values")
    if not len(p):
        raise ValueError("there are no p values to adjust")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(f"p values must lie between 0 and 1; they run from {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    if isinstance(p_values, pd.Series):
        return pd.Series(adjusted, index=p_values.index, name=p_values.name)
    return adjusted


def friedman_nemenyi(performance: pd.DataFrame, *, alpha: float = 0.05) -> FriedmanResult:
    """Compare models over cohorts by their ranks (Friedman 1937; Nemenyi 1963; Demšar 2006).

    Parameters
    ----------
    performance : DataFrame, cohorts x models
        Higher is better. Ties share their mean rank.
    alpha : float
        Level of Nemenyi's critical difference.

    Raises
    ------
    TypeError
        If `performance` is not a DataFrame.
    ValueError
        If there are fewer than two cohorts or models, a value is missing or not a number, or a
        name stands twice.
    """
    if not isinstance(performance, pd.DataFrame):
        raise TypeError("performance must be a DataFrame with cohorts as rows, models as columns")
    cohorts, models = performance.shape
    if cohorts < 2 or models < 2:
        raise ValueError(f"ranks need two cohorts and two models, not {cohorts} and {models}")
    for what, names in (("cohort", performance.index), ("model", performance.columns)):
        if not names.is_unique:
            raise ValueError(f"{what} {names[names.duplicated()][0]!r} stands twice")
    values = np.column_stack([_numbers(performance[m], f"model {m!r}") for m in performance])
    ranks = sps.rankdata(-values, axis=1)
    tied = sum(
        float((counts**3 - counts).sum())
        for counts in (np.unique(row, return_counts=True)[1] for row in ranks)
    )
    mean_ranks = ranks.mean(axis=0)
    spread = 12 * cohorts * np.sum((mean_ranks - (models + 1) / 2) ** 2) / (models * (models + 1))
    correction = 1 - tied / (cohorts * models * (models**2 - 1))
    statistic = spread / correction if correction > 1e-12 else 0.0
    q = sps.studentized_range.ppf(1 - _level(alpha), models, np.inf) / np.sqrt(2)
    return FriedmanResult(
        float(statistic),
        float(sps.chi2.sf(statistic, models - 1)),
        pd.Series(mean_ranks, index=performance.columns, name="mean_rank").sort_values(),
        float(q * np.sqrt(models * (models + 1) / (6 * cohorts))),
    )
