"""Areas under ROC curves: their bootstrap and their comparison."""

from collections.abc import Iterator

import numpy as np
from scipy import stats as sps

from tumorbench_utils import checks
from tumorbench_utils.stats.estimate import Estimate


def _checked(y, scores: dict, groups=None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Return labels, scores in their order, and groups as numbers from 0."""
    labels = checks.labels(y)
    arrays = [checks.numbers(checks.aligned(y, s, name), name) for name, s in scores.items()]
    codes = checks.groups(groups, y)
    if codes.max() == 0:
        raise checks.InputError("all rows are of one group; at least two are needed")
    return labels, arrays, codes


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
    InputError
        If lengths or indexes differ, a value is missing or infinite, or one class is absent.

    See Also
    --------
    sklearn.metrics.roc_auc_score : the same number, without the join by index.
    """
    labels, (score,), _ = _checked(y, {"score": score})
    return float(auc_per_column(score, labels))


def auc_per_column(scores: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the AUC of every column of scores, ties counted half.

    Parameters
    ----------
    scores : ndarray, shape (n, m)
    y : ndarray of 0 and 1, shape (n,)
        Both classes are there.
    """
    positives = int(y.sum())
    u = sps.rankdata(scores, axis=0)[y == 1].sum(axis=0) - positives * (positives + 1) / 2
    return u / (positives * (len(y) - positives))


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
    InputError
        If more than half of the resamples have no value.
    """
    valid = values[np.isfinite(values)]
    if 2 * len(valid) < len(values):
        raise checks.InputError("most resamples hold one class only: too few cases (or groups)")
    return tuple(np.quantile(valid, [(1 - checks.share(level)) / 2, (1 + level) / 2]).tolist())


def bootstrap_auc(
    y, score, groups=None, n: int = 2000, seed: int = 0, *, level: float = 0.95
) -> Estimate:
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
    Estimate
        Unpacks as ``auc, low, high``.

    Raises
    ------
    InputError
        As :func:`auc`; also for missing groups, a single group, or if more than half of the
        resamples hold one class only.

    See Also
    --------
    scipy.stats.bootstrap : resamples single cases; patients cannot be kept together.
    """
    labels, (score,), codes = _checked(y, {"score": score}, groups)
    area = WeightedAUC(labels, score)
    values = np.concatenate([area(counts) for counts in resample_counts(codes, n, seed)])
    value = area(np.ones((1, len(labels))))[0]
    unit = "lesions" if groups is None else "patients"
    return Estimate(value, *percentile_interval(values, level), f"bootstrap over {unit}")


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
        reference, own = np.sort(score[labels == other]), score[labels == this]
        below = np.searchsorted(reference, own, "left") + np.searchsorted(reference, own, "right")
        share = below / (2 * len(reference))
        places[labels == this] = share if this == 1 else 1 - share
    return places


def delong_test(y, s1, s2, *, groups=None) -> tuple[float, float, float]:
    """Compare two correlated AUCs after DeLong et al. [1]_.

    With `groups` the variance is that of Obuchowski [2]_ for clustered data, which equals DeLong's
    when every group holds one case.

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
    InputError
        As :func:`auc`; also if a class has fewer than two cases (or stands in one group only).

    References
    ----------
    .. [1] DeLong ER, DeLong DM, Clarke-Pearson DL. Comparing the areas under two or more correlated
       receiver operating characteristic curves. Biometrics 1988;44:837-845.
    .. [2] Obuchowski NA. Nonparametric analysis of clustered ROC curve data. Biometrics
       1997;53:567-578.
    """
    labels, (s1, s2), codes = _checked(y, {"s1": s1, "s2": s2}, groups)
    difference = _placements(labels, s1) - _placements(labels, s2)
    diff = difference[labels == 1].mean()
    total = codes.max() + 1
    # The variance is a sum over groups: of the positives', of the negatives' and, where a group
    # holds both, of their products (Obuchowski's S10, S01 and S11).
    sums, factors = [], []
    for own in (labels == 1, labels == 0):
        count = len(np.unique(codes[own]))
        if count < 2:
            raise checks.InputError("DeLong's test needs two cases (or groups) of either label")
        centred = difference[own] - diff
        sums.append(np.bincount(codes[own], centred, minlength=total) / own.sum())
        factors.append(count / (count - 1))
    variance = factors[0] * np.sum(sums[0] ** 2) + factors[1] * np.sum(sums[1] ** 2)
    variance += 2 * total / (total - 1) * np.sum(sums[0] * sums[1])
    # Two orders that differ nowhere leave rounding errors of this size, not a variance.
    if variance <= 1e-20:
        same = abs(diff) < 1e-12
        return (0.0, 0.0, 1.0) if same else (float(diff), float(np.copysign(np.inf, diff)), 0.0)
    z = diff / np.sqrt(variance)
    return float(diff), float(z), float(2 * sps.norm.sf(abs(z)))
