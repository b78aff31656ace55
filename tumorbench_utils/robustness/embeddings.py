"""Repeatability of embeddings: what raw cosine hides, and what to look at instead."""

import numpy as np
import pandas as pd
from scipy import stats as sps
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold

from tumorbench_utils.robustness.agreement import (
    Estimate,
    RobustnessError,
    exact,
    icc_of,
    joined,
    mean_squares,
    numbers,
    tail_of,
)


def paired_embeddings(first, second, minimum: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return two embeddings per subject as float64 arrays (n, d) of one order.

    DataFrames are joined by index and columns; vectors (n,) count as one feature.

    Raises
    ------
    RobustnessError
        If a subject lacks one of the two or stands twice, features differ, or a value is missing.
    """
    second = joined(first, second)
    first, second = numbers(first, "first"), numbers(second, "second")
    first, second = (x[:, None] if x.ndim == 1 else x for x in (first, second))
    if first.shape != second.shape or first.ndim != 2 or first.shape[1] == 0:
        raise RobustnessError(
            "two embeddings are subjects x features of one shape, with a feature at least, not "
            f"{first.shape} and {second.shape}"
        )
    if len(first) < minimum:
        raise RobustnessError(f"at least {minimum} subjects are needed, not {len(first)}")
    return first, second


def _distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of every first to every second: cosine after centring; of one feature, absolute."""
    if first.shape[1] == 1:
        return np.abs(first - second.T)
    centre = np.concatenate([first, second]).mean(axis=0)
    units = []
    for values in (first - centre, second - centre):
        norm = np.linalg.norm(values, axis=1, keepdims=True)
        units.append(np.divide(values, norm, out=np.zeros_like(values), where=norm > 0))
    return 1 - units[0] @ units[1].T


def reidentification(first, second, *, level: float = 0.95) -> Estimate:
    """Return how often a subject's second scan is nearer to its own first scan than to any other.

    Cosine distance after removing the common mean; absolute difference for one feature. Chance is
    1/n. k subjects at one smallest distance share the hit. Clopper and Pearson's exact interval.

    Parameters
    ----------
    first, second : array-like, shape (n, d) or (n,)
        The same subjects twice; DataFrames are joined by their index.
    level : float

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`paired_embeddings`.
    """
    first, second = paired_embeddings(first, second)
    distance = _distances(second, first)
    nearest = distance <= distance.min(axis=1, keepdims=True) + 1e-12
    hits = (np.diag(nearest) / nearest.sum(axis=1)).sum()
    n, tail = len(first), tail_of(level)
    low = sps.beta.ppf(tail, hits, n - hits + 1) if hits > 0 else 0.0
    high = sps.beta.ppf(1 - tail, hits + 1, n - hits) if hits < n else 1.0
    return Estimate(float(hits / n), float(low), float(high))


def discriminability(
    first, second, *, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Estimate:
    """Return how often two scans of one subject are nearer than scans of two subjects.

    Bridgeford et al. (2021); 0.5 is chance, ties count half. Interval: bootstrap over subjects of
    their own shares.

    Parameters
    ----------
    first, second : array-like, shape (n, d) or (n,)
    n : int
        Resamples.
    seed : int
    level : float

    Returns
    -------
    value, low, high : float
    """
    first, second = paired_embeddings(first, second)
    shares = []
    for distance in (_distances(first, second), _distances(second, first)):
        own = np.diag(distance)[:, None]
        other = ~np.eye(len(first), dtype=bool)
        larger = (distance > own + 1e-12) + 0.5 * (np.abs(distance - own) <= 1e-12)
        shares.append((larger * other).sum(axis=1) / (len(first) - 1))
    share = np.mean(shares, axis=0)
    rng = np.random.default_rng(seed)
    draws = share[rng.integers(0, len(share), (n, len(share)))].mean(axis=1)
    tail = tail_of(level)
    return Estimate(float(share.mean()), *(float(q) for q in np.quantile(draws, [tail, 1 - tail])))


def whitened_cosine(first, second, *, folds: int = 5, seed: int = 0) -> pd.DataFrame:
    """Return cosines within and between subjects after centring and whitening on *other* subjects.

    Raw cosine is high for every pair of vectors with a common offset. Here mean and principal
    components come from the first scans of the subjects outside a fold; components are kept up to
    90% of their variance and scaled to unit variance.

    Parameters
    ----------
    first, second : array-like, shape (n, d)
    folds : int
    seed : int

    Returns
    -------
    DataFrame, one row per subject
        ``raw``: cosine of its two scans as they are; ``within``: the same after whitening;
        ``between``: mean whitened cosine of its first scan with second scans of the other subjects
        of its fold; ``percentile``: share of those that lie below ``within``, ties half.
    """
    index = first.index if isinstance(first, pd.DataFrame) else None
    first, second = paired_embeddings(first, second, minimum=2 * folds)
    result = pd.DataFrame(
        index=index if index is not None else range(len(first)),
        columns=["raw", "within", "between", "percentile"],
        dtype=float,
    )
    result["raw"] = np.diag(_cosine(first, second))
    for fit, hold in KFold(folds, shuffle=True, random_state=seed).split(first):
        if np.ptp(first[fit], axis=0).max() == 0:
            raise RobustnessError("all subjects have the same embedding; nothing can be whitened")
        white = PCA(0.9, whiten=True, svd_solver="full").fit(first[fit])
        cosine = _cosine(white.transform(first[hold]), white.transform(second[hold]))
        own = np.diag(cosine)
        other = cosine[~np.eye(len(hold), dtype=bool)].reshape(len(hold), -1)
        result.iloc[hold, 1] = own
        result.iloc[hold, 2] = other.mean(axis=1)
        below, equal = other < own[:, None] - 1e-9, np.abs(other - own[:, None]) <= 1e-9
        result.iloc[hold, 3] = (below + 0.5 * equal).mean(axis=1)
    return result


def _cosine(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    norms = [np.linalg.norm(x, axis=1, keepdims=True) for x in (first, second)]
    if min(norm.min() for norm in norms) == 0:
        raise RobustnessError("an embedding is zero and has no direction")
    return (first / norms[0]) @ (second / norms[1]).T


def component_icc(first, second, form: str = "A1", *, level: float = 0.95) -> pd.DataFrame:
    """Return the ICC of every component of an embedding, see :func:`icc`.

    Parameters
    ----------
    first, second : array-like, shape (n, d)
    form : {"A1", "C1"}
    level : float

    Returns
    -------
    DataFrame, one row per component that varies between subjects, columns ``value, low, high``
        A component that is constant has no ICC and no row.
    """
    first, second = paired_embeddings(first, second)
    varies = np.flatnonzero(np.ptp(np.concatenate([first, second]), axis=0) > 0)
    squares = mean_squares(first[:, varies], second[:, varies])
    estimate = icc_of(squares, len(first), form, level)
    frame = pd.DataFrame(dict(zip(Estimate._fields, estimate, strict=True)), index=varies)
    frame.loc[exact(squares, form)] = 1.0
    return frame[squares.subjects > 0]


def reliable_share(
    first, second, threshold: float = 0.75, form: str = "A1", *, level: float = 0.95
) -> Estimate:
    """Return the share of components whose ICC lies above a threshold for sure.

    A component counts if the lower bound of its interval is above `threshold` (0.75 is called good,
    0.9 excellent by Koo and Li 2016). Components that are constant count as not reliable.

    Parameters
    ----------
    first, second : array-like, shape (n, d)
    threshold : float
    form : {"A1", "C1"}
    level : float
        Of the ICCs and of the interval of the share, which is the jackknife's over subjects.

    Returns
    -------
    value, low, high : float

    Raises
    ------
    RobustnessError
        As :func:`paired_embeddings`; also if the threshold is not below 1.
    """
    first, second = paired_embeddings(first, second, minimum=4)
    return _share(_lower_bounds(first, second, form, level), threshold, level)


def _lower_bounds(first: np.ndarray, second: np.ndarray, form: str, level: float) -> np.ndarray:
    """Return the ICC's lower bounds: row 0 of all subjects, row k without subject k - 1."""
    lows = np.full((len(first) + 1, first.shape[1]), -np.inf)
    for row in range(len(lows)):
        rows = np.delete(np.arange(len(first)), row - 1 if row else [])
        found = component_icc(first[rows], second[rows], form, level=level)
        lows[row, found.index] = found["low"]
    return lows


def _share(lows: np.ndarray, threshold: float, level: float) -> Estimate:
    """Return the share of lower bounds above a threshold, with the jackknife's interval."""
    if not -1 <= threshold < 1:
        raise RobustnessError(f"the threshold of an ICC lies below 1, not at {threshold!r}")
    value, *others = (lows > threshold).mean(axis=1)
    n, others = len(others), np.array(others)
    error = np.sqrt((n - 1) / n * ((others - others.mean()) ** 2).sum())
    half = sps.t.ppf(1 - tail_of(level), n - 1) * error
    return Estimate(float(value), float(max(value - half, 0)), float(min(value + half, 1)))


def profile(first, second, *, seed: int = 0, level: float = 0.95) -> pd.Series:
    """Return all that this module says of an embedding that was measured twice, in one row.

    Parameters
    ----------
    first, second : DataFrame or array, shape (n, d)
    seed : int
        Of folds and resamples.
    level : float

    Returns
    -------
    Series
        ``raw_cosine, whitened_cosine, percentile`` (means over subjects, see
        :func:`whitened_cosine`), ``reidentification``, ``discriminability``, ``icc_above_075,
        icc_above_090``, each with ``_low`` and ``_high``; ``between_cosine``, ``chance`` (of a
        re-identification), ``effective_rank`` and ``collapsed`` of the first scans, ``n``.

    Raises
    ------
    RobustnessError
        As the functions named; 10 subjects are needed.
    """
    cosines = whitened_cosine(first, second, seed=seed)
    row: dict = {"n": len(cosines), "between_cosine": cosines["between"].mean()}
    rng = np.random.default_rng(seed)
    picked = rng.integers(0, len(cosines), (1000, len(cosines)))
    tail = tail_of(level)
    names = {"raw": "raw_cosine", "within": "whitened_cosine", "percentile": "percentile"}
    found = {}
    for column, name in names.items():
        values = cosines[column].to_numpy()
        ends = np.quantile(values[picked].mean(axis=1), [tail, 1 - tail])
        found[name] = (values.mean(), *ends)
    found["reidentification"] = reidentification(first, second, level=level)
    found["discriminability"] = discriminability(first, second, seed=seed, level=level)
    lows = _lower_bounds(*paired_embeddings(first, second), "A1", level)
    found["icc_above_075"] = _share(lows, 0.75, level)
    found["icc_above_090"] = _share(lows, 0.9, level)
    for name, (value, low, high) in found.items():
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
    row["chance"] = 1 / len(cosines)
    return pd.Series(row | collapse(first).to_dict(), dtype=object)


def effective_rank(X) -> float:
    """Return the effective rank of embeddings (Roy and Vetterli 2007).

    The exponential of the entropy of the normalised singular values after centring: 1 if all
    subjects lie on a line, at most ``min(n - 1, d)``; 0 if all are equal.

    Parameters
    ----------
    X : array-like, shape (n, d)

    Raises
    ------
    RobustnessError
        If there are fewer than 3 subjects or a value is missing.
    """
    X, _ = paired_embeddings(X, X)
    singular = np.linalg.svd(X - X.mean(axis=0), compute_uv=False)
    if singular.sum() <= 1e-12 * max(1.0, np.abs(X).max()):
        return 0.0
    share = singular / singular.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def collapse(X) -> pd.Series:
    """Return signs that an embedding maps all subjects to nearly one point.

    Parameters
    ----------
    X : array-like, shape (n, d)
        One scan of each subject.

    Returns
    -------
    Series
        ``mean_cosine`` between subjects as they are, ``effective_rank`` and ``collapsed``: the
        mean cosine is above 0.99 or the effective rank below 2. A test-retest cosine says nothing
        about such an embedding.

    Raises
    ------
    RobustnessError
        As :func:`effective_rank`; also if an embedding is zero.
    """
    X, _ = paired_embeddings(X, X)
    cosine = _cosine(X, X)[np.triu_indices(len(X), 1)].mean()
    rank = effective_rank(X)
    return pd.Series(
        {"mean_cosine": cosine, "effective_rank": rank, "collapsed": cosine > 0.99 or rank < 2},
        dtype=object,
    )
