"""Repeatability of embeddings: what raw cosine hides, and what to look at instead."""

import numpy as np
import pandas as pd
from scipy import stats as sps
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.model_selection import KFold

from tumorbench_utils.robustness.agreement import ENDS, RobustnessError, icc_by_column, paired
from tumorbench_utils.stats import Estimate

#: Distances (of cosines, or in shares of the largest) that differ by less are equal: rounding.
_SAME = 1e-12

_PROFILE = (
    "raw_cosine whitened_cosine between_cosine percentile reidentification discriminability "
    "icc_above_075 icc_above_090"
).split()


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of every first to every second: cosine after centring; of one feature, absolute."""
    if first.shape[1] == 1:
        apart = np.abs(first - second.T)
        return apart / max(apart.max(), np.finfo(float).tiny)
    centre = np.concatenate([first, second]).mean(axis=0)
    return 1 - cosine_similarity(first - centre, second - centre)


def reidentification(first, second) -> Estimate:
    """Return how often a subject's second scan is nearer to its own first scan than to any other.

    Cosine distance after removing the common mean; absolute difference for one feature. Chance is
    1/n. k subjects at one smallest distance share the hit.

    Parameters
    ----------
    first, second : array-like, shape (n, d) or (n,)
        The same subjects twice; DataFrames are joined by their index.

    Returns
    -------
    Estimate
        With Clopper and Pearson's exact interval.

    Raises
    ------
    RobustnessError
        If a subject lacks one of the two or stands twice, features differ, or a value is missing.

    See Also
    --------
    sklearn.neighbors.KNeighborsClassifier : Its score with one neighbour, fitted on the first
        scans with the subjects as labels, is the same but for ties and centring.
    """
    first, second = paired(first, second, ndim=2)
    distance = _distances(second, first)
    nearest = distance <= distance.min(axis=1, keepdims=True) + _SAME
    hits, n = (np.diag(nearest) / nearest.sum(axis=1)).sum(), len(first)
    ends = sps.beta.ppf(ENDS, [hits, hits + 1], [n - hits + 1, n - hits])  # none of 0 and of n hits
    return Estimate(hits / n, *np.where(np.isnan(ends), [0, 1], ends), "Clopper-Pearson")


def discriminability(first, second) -> Estimate:
    """Return how often two scans of one subject are nearer than scans of two subjects.

    0.5 is chance, ties count half [1]_.

    Parameters
    ----------
    first, second : array-like, shape (n, d) or (n,)

    Returns
    -------
    Estimate
        With a 95% interval from a bootstrap over subjects' own shares.

    References
    ----------
    .. [1] Bridgeford et al. (2021), Eliminating accidental deviations to minimize generalization
       error and maximize replicability. PLoS Comput Biol 17(9).
    """
    first, second = paired(first, second, ndim=2)
    shares = []
    for distance in (_distances(first, second), _distances(second, first)):
        other = distance[~np.eye(len(first), dtype=bool)].reshape(len(first), -1)
        shares.append(1 - _share_below(other, np.diag(distance), _SAME))
    return _mean(np.mean(shares, axis=0))


def _share_below(values: np.ndarray, own: np.ndarray, same: float) -> np.ndarray:
    """Return for each row the share of values below its own one, ties half."""
    apart = values - own[:, None]
    return ((apart < -same) + 0.5 * (np.abs(apart) <= same)).mean(axis=1)


def _mean(values: np.ndarray) -> Estimate:
    drawn = sps.bootstrap([values], np.mean, n_resamples=1000, method="percentile", rng=0)
    return Estimate(values.mean(), *drawn.confidence_interval, "bootstrap of subjects")


def whitened_cosine(first, second) -> pd.DataFrame:
    """Return cosines within and between subjects after centring and whitening on *other* subjects.

    Raw cosine is high for every pair of vectors with a common offset. Here mean and principal
    components come from the first scans of the subjects outside one of five folds, kept up to
    90% of their variance and scaled to unit variance.

    Parameters
    ----------
    first, second : array-like, shape (n, d)

    Returns
    -------
    DataFrame, one row per subject
        ``raw``: cosine of its two scans as they are; ``within``: the same after whitening;
        ``between``: mean whitened cosine of its first scan with second scans of the other subjects
        of its fold; ``percentile``: share of those that lie below ``within``, ties half.

    See Also
    --------
    sklearn.decomposition.PCA : Centres and whitens.
    """
    first, second = paired(first, second, minimum=10, ndim=2)
    rows = np.empty((len(first), 4))
    rows[:, 0] = np.diag(_cosine(first, second))
    for fit, hold in KFold(5, shuffle=True, random_state=0).split(first):
        if np.ptp(first[fit], axis=0).max() == 0:
            raise RobustnessError("all subjects have the same embedding; nothing can be whitened")
        white = PCA(0.9, whiten=True, svd_solver="full").fit(first[fit])
        cosine = _cosine(white.transform(first[hold]), white.transform(second[hold]))
        own, other = np.diag(cosine), cosine[~np.eye(len(hold), dtype=bool)]
        other = other.reshape(len(hold), -1)
        rows[hold, 1:] = np.c_[own, other.mean(axis=1), _share_below(other, own, 1e-9)]
    return pd.DataFrame(rows, columns=["raw", "within", "between", "percentile"])


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    if not (first.any(axis=1).all() and second.any(axis=1).all()):
        raise RobustnessError("an embedding is zero and has no direction")
    return cosine_similarity(first, second)


def component_icc(first, second) -> pd.DataFrame:
    """Return the ICC(A,1) of every component of an embedding, see :func:`icc`.

    Parameters
    ----------
    first, second : array-like, shape (n, d)

    Returns
    -------
    DataFrame, one row per component that varies between subjects, columns ``value, low, high``
        A component that is constant has no ICC and no row.
    """
    found = icc_by_column(*paired(first, second, ndim=2))
    return pd.DataFrame(found.T, columns=["value", "low", "high"]).dropna(subset="value")


def _reliable_shares(first, second, *thresholds: float) -> list[Estimate]:
    """Return the share of components whose ICC lies above each threshold for sure.

    A component counts if the lower bound of its interval is above the threshold (0.75 is called
    good, 0.9 excellent by Koo and Li 2016). Constant components count as not reliable. The interval
    of the share is the jackknife's over subjects.
    """
    n, found = len(first), []
    rows = [np.arange(n), *(np.delete(np.arange(n), k) for k in range(n))]
    lows = np.array([icc_by_column(first[r], second[r])[1] for r in rows])
    for threshold in thresholds:
        value, *others = (lows > threshold).mean(axis=1)
        half = sps.t.ppf(ENDS[1], n - 1) * np.sqrt((n - 1) * np.var(others))
        found.append(Estimate(value, max(value - half, 0), min(value + half, 1), "jackknife"))
    return found


def profile(first, second) -> pd.Series:
    """Return all that this module says of an embedding that was measured twice, in one row.

    Parameters
    ----------
    first, second : DataFrame or array, shape (n, d)

    Returns
    -------
    Series
        ``raw_cosine, whitened_cosine, between_cosine, percentile`` (means over subjects, see
        :func:`whitened_cosine`), ``reidentification``, ``discriminability``, ``icc_above_075,
        icc_above_090`` (shares of components whose lower bound of the ICC is above), each with
        ``_low`` and ``_high``; ``chance`` (of a re-identification), ``mean_cosine``,
        ``effective_rank`` and ``collapsed`` of the first scans, ``n``.

    Raises
    ------
    RobustnessError
        As the functions named; 10 subjects are needed.
    """
    cosines = whitened_cosine(first, second).to_numpy().T
    first, second = paired(first, second, ndim=2)
    found = [*map(_mean, cosines), reidentification(first, second), discriminability(first, second)]
    found += _reliable_shares(first, second, 0.75, 0.9)
    row = {"n": len(first), "chance": 1 / len(first), **collapse(first)}
    for name, (value, low, high) in zip(_PROFILE, found, strict=True):
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return pd.Series(row, dtype=object)


def collapse(X) -> pd.Series:
    """Return signs that an embedding maps all subjects to nearly one point.

    Parameters
    ----------
    X : array-like, shape (n, d)
        One scan of each subject.

    Returns
    -------
    Series
        ``mean_cosine`` between subjects as they are; ``effective_rank`` [1]_, the exponential of
        the entropy of the normalised singular values after centring: 1 if all subjects lie on a
        line, at most ``min(n - 1, d)``, 0 if all are equal; ``collapsed``: the mean cosine is above
        0.99 or the effective rank below 2. A test-retest cosine says nothing about such an
        embedding.

    Raises
    ------
    RobustnessError
        If there are fewer than 3 subjects, a value is missing, or an embedding is zero.

    References
    ----------
    .. [1] Roy and Vetterli (2007), The effective rank: a measure of effective dimensionality.
       EUSIPCO.
    """
    X, _ = paired(X, X, ndim=2)
    cosine = _cosine(X, X)[np.triu_indices(len(X), 1)].mean()
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    # What centring leaves of equal rows is rounding, in proportion to the values themselves.
    spread = singular.sum() > 1e-12 * np.abs(X).max()
    rank = np.exp(sps.entropy(singular)) if spread else 0.0
    names = ["mean_cosine", "effective_rank", "collapsed"]
    return pd.Series([cosine, float(rank), cosine > 0.99 or rank < 2], names, dtype=object)
