"""Every pair of models at once, permutation nulls and intervals over patients."""

import itertools
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from tumorbench_utils.settings import unknown
from tumorbench_utils.similarity.inputs import Embedding, SimilarityError, align, pair
from tumorbench_utils.similarity.measures import (
    MEASURES,
    cka_relation,
    components,
    neighbours,
    nuclear,
    rsa_relation,
)

#: Measures that are inner products of relations: how to make one, and the factor in front.
_RELATIONS = {
    "knn_overlap": (neighbours, lambda n: 1 / n),
    "linear_cka": (cka_relation, lambda n: 1.0),
    "rsa": (rsa_relation, lambda n: 1.0),
}


def _name(measure: str | Callable) -> str | None:
    """Return the name of a known measure, or None for a user's own function."""
    if callable(measure):
        return next((name for name, known in MEASURES.items() if known is measure), None)
    if measure not in MEASURES:
        raise KeyError(unknown("measure of similarity", measure, MEASURES))
    return measure


def pairwise(
    embeddings: Mapping[str, Embedding],
    measure: str,
    *,
    n_permutations: int = 0,
    n_halves: int = 0,
    groups=None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every two models, with a permutation test and intervals over patients if asked.

    Parameters
    ----------
    embeddings : mapping of model to DataFrame or array
    measure : str
        A name of :data:`MEASURES`.
    n_permutations : int
        Permutations of the lesions for the null; 0 leaves the null out. All pairs see the same
        permutations.
    n_halves : int
        Half-samples of the patients for 95% intervals, see :func:`subsample_interval`; 0 leaves
        them out.
    groups : array-like, shape (lesions,), optional
        Patient of each lesion, in the order of the first model; each lesion on its own if None.
    seed : int

    Returns
    -------
    DataFrame
        One row per pair: ``first, second, value``; with permutations ``null_mean, null_high``
        (97.5th percentile) and ``p`` (one-sided; (1 + as large) / (1 + permutations)); with
        half-samples ``low, high``.
    """
    arrays = align(embeddings)
    name = _name(measure)
    if name is None:
        raise SimilarityError(
            f"measure is one of {', '.join(MEASURES)}, not a function of your own"
        )
    pairs = list(itertools.combinations(range(len(arrays)), 2))
    if not pairs:
        raise SimilarityError("a comparison needs at least two models")
    first, second = (np.array(side) for side in zip(*pairs, strict=True))
    products = _products(list(arrays.values()), name, first, second)
    n = len(next(iter(arrays.values())))
    values = products(np.arange(n))
    names = np.array(list(arrays))
    result = pd.DataFrame({"first": names[first], "second": names[second], "value": values})
    if n_permutations:
        rng = np.random.default_rng(seed)
        null = np.array([products(rng.permutation(n)) for _ in range(n_permutations)])
        result["null_mean"] = null.mean(axis=0)
        result["null_high"] = np.quantile(null, 0.975, axis=0)
        result["p"] = (1 + (null >= values - 1e-6 * np.abs(values)).sum(axis=0)) / (
            1 + n_permutations
        )
    if n_halves:
        draws = []
        for keep in _halves(groups, n, n_halves, seed):
            half = _products([a[keep] for a in arrays.values()], name, first, second)
            draws.append(half(np.arange(keep.sum())))
        low, high = np.quantile(draws, [0.025, 0.975], axis=0) - np.mean(draws, axis=0)
        result["low"], result["high"] = values + low, values + high
    return result


def _products(
    arrays: list[np.ndarray], name: str, first: np.ndarray, second: np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function of a permutation: the measure of each pair, its second model permuted."""
    if name in _RELATIONS:
        relation, factor = _RELATIONS[name]
        stack = np.stack([relation(a) for a in arrays]).astype(np.float32)
        flat, scale = stack.reshape(len(arrays), -1), factor(len(arrays[0]))

        def products(order: np.ndarray) -> np.ndarray:
            permuted = stack.take(order, axis=1).take(order, axis=2).reshape(len(arrays), -1)
            return (flat @ permuted.T)[first, second].astype(float) * scale

        return products
    scores = [components(a) for a in arrays]
    # Components of zero make all models as wide as the widest; they add nothing to the norm.
    wide = max(a.shape[1] for a in scores)
    side = np.hstack([np.pad(a, [(0, 0), (0, wide - a.shape[1])]) for a in scores])

    def rotated(order: np.ndarray) -> np.ndarray:
        blocks = (side.T @ side[order]).reshape(len(arrays), wide, len(arrays), wide)
        return nuclear(blocks[first, :, second])

    return rotated


def permutation_null(
    measure: str | Callable, A: Embedding, B: Embedding, n: int = 1000, seed: int = 0
) -> np.ndarray:
    """Return a measure for `n` random assignments of the lesions of B to those of A.

    Parameters
    ----------
    measure : str or callable
        A name of :data:`MEASURES`, one of its functions, or your own function of two arrays.
    A, B : array-like, shape (lesions, d_A) and (lesions, d_B)
    n : int
        Permutations.
    seed : int

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    KeyError
        If the name is not known.
    SimilarityError
        As the measure; also if `n` is not a whole number above 0.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise SimilarityError(f"the number of permutations is a whole number above 0, not {n!r}")
    A, B = pair(A, B)
    rng = np.random.default_rng(seed)
    name = _name(measure)
    if name is None:
        return np.array([float(measure(A, B[rng.permutation(len(B))])) for _ in range(n)])
    products = _products([A, B], name, np.array([0]), np.array([1]))
    return np.array([products(rng.permutation(len(B)))[0] for _ in range(n)], dtype=float)


def subsample_interval(
    measure: str | Callable,
    A: Embedding,
    B: Embedding,
    groups=None,
    *,
    n: int = 200,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """Return a measure and an interval over patients by half-sampling.

    This is the bootstrap over patients in its form without replacement. With replacement, copies
    of a lesion would stand next to each other, and copies are neighbours in every model. Half of
    the patients, drawn without replacement, hold no copies, and the spread of a statistic over
    half-samples estimates its spread over full samples (Politis and Romano 1994).

    Parameters
    ----------
    measure, A, B
        As for :func:`permutation_null`.
    groups : array-like, shape (lesions,), optional
        Patient of each lesion, in the order of the rows of A; each lesion on its own if None.
    n : int
        Half-samples.
    seed : int
    level : float

    Returns
    -------
    value, low, high : float
    """
    A, B = pair(A, B)
    if not 0 < level < 1:
        raise SimilarityError(f"level lies between 0 and 1, not {level!r}")
    name = _name(measure)
    function = measure if name is None else MEASURES[name]
    draws = [function(A[keep], B[keep]) for keep in _halves(groups, len(A), n, seed)]
    value = float(function(A, B))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - np.mean(draws)
    return value, float(value + low), float(value + high)


def _halves(groups, lesions: int, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `n` masks (lesions,) that keep all lesions of a random half of the patients."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 2:
        raise SimilarityError(f"the number of half-samples is a whole number above 1, not {n!r}")
    groups = np.arange(lesions) if groups is None else np.asarray(groups)
    if groups.shape != (lesions,):
        raise SimilarityError(f"groups has the shape {groups.shape} for {lesions} lesions")
    if pd.isna(groups).any():
        raise SimilarityError("groups has missing values: give every lesion a patient")
    codes, patients = pd.factorize(groups)
    if len(patients) < 8:
        raise SimilarityError(f"half-sampling needs at least 8 patients, not {len(patients)}")
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield np.isin(codes, rng.permutation(len(patients))[: len(patients) // 2])
