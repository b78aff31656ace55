"""How alike two models see the same lesions: four measures, their nulls and intervals.

Three of the four measures have one form. Each model is turned into a lesion x lesion matrix, its
*relation* (who is a neighbour of whom; which pairs are alike; ranks of the distances), and the
measure is an inner product of two relations. Relabelling the lesions permutes rows and columns of
a relation and changes nothing else, so a permutation null for many models at once costs one matrix
product per permutation.

Embeddings are arrays (n lesions, d) or DataFrames indexed by ``lesion_id``; DataFrames are joined
by their index, never by position.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tumorbench_utils import checks
from tumorbench_utils.checks import InputError, aligned, numbers
from tumorbench_utils.checks import groups as patients_of
from tumorbench_utils.settings import unknown

__all__ = [
    "MEASURES", "knn_overlap", "linear_cka", "pairwise", "permutation_null", "regress_out", "rsa",
]  # fmt: skip

Embedding = np.ndarray | pd.DataFrame

#: Principal components that Procrustes looks at.
COMPONENTS = 50

#: Digits of a cosine beyond which only rounding differs; it must not decide who is a neighbour.
_DIGITS = 14


class SimilarityError(InputError):
    """Embeddings that cannot be compared."""


require = partial(checks.require, error=SimilarityError)


def align(embeddings: Mapping[str, Embedding]) -> list[np.ndarray]:
    """Return embeddings as float64 arrays whose rows are the lesions of the first, in its order."""
    first = next(iter(embeddings.values()))
    arrays = []
    for name, A in embeddings.items():
        A = aligned(first, A, name, strict=True, error=SimilarityError)
        arrays.append(numbers(A, name, ndim=2, error=SimilarityError))
    return arrays


def _cosine(A: np.ndarray) -> np.ndarray:
    """Return the cosine of every two rows, shape (n, n)."""
    largest = np.abs(A).max(axis=1, keepdims=True)
    require(largest.all(), f"row {largest.argmin()} is all zero and has no direction")
    unit = A / largest  # first, so that no square over- or underflows
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.round(unit @ unit.T, _DIGITS)


def neighbours(A: np.ndarray, k: int = 10) -> np.ndarray:
    """Return how much each lesion is among the `k` nearest of each, by cosine, self excluded.

    Where lesions are equally far and not all of them find a place, each has the share of the places
    left that it would have if ties were broken at random: no order of the rows is preferred, and
    two unrelated embeddings with ties share no more neighbours than others.

    Parameters
    ----------
    A : ndarray, shape (n, d)
    k : int
        Less than n.

    Returns
    -------
    ndarray of float, shape (n, n)
        1 where the column is a neighbour of the row, 0 where it is not. Every row adds up to `k`.
    """
    if not 1 <= k < len(A) or k != int(k):
        raise SimilarityError(f"{len(A)} lesions have no {k!r} neighbours other than themselves")
    closeness = _cosine(A)
    same = closeness.min() >= 1 - 10 * 10.0**-_DIGITS
    require(not same, "all lesions have the same embedding up to its length")
    np.fill_diagonal(closeness, -np.inf)
    last = -np.partition(-closeness, k - 1, axis=1)[:, k - 1 : k]
    closer, tied = closeness > last, closeness == last
    places = k - closer.sum(axis=1, keepdims=True)
    return closer + tied * (places / tied.sum(axis=1, keepdims=True))


def _unit(relation: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(relation)
    # The relation of a constant embedding is rounding error around zero.
    require(norm > 1e-12 * len(relation), "all lesions have the same embedding: no likeness")
    return relation / norm


def _centred(A: np.ndarray) -> np.ndarray:
    """Return an embedding without its mean, its largest value 1 if it is not constant."""
    A = A / (np.abs(A).max() or 1.0)  # first, so that no sum or square over- or underflows
    A = A - A.mean(axis=0)
    return A / (np.abs(A).max() or 1.0)


def cka_relation(A: np.ndarray) -> np.ndarray:
    """Return the U-centred Gram matrix (Székely and Rizzo 2014) of unit norm.

    Its inner products are those of the unbiased estimate of HSIC (Song et al. 2012).
    """
    n = len(A)
    require(n >= 4, f"debiased CKA needs at least 4 lesions, not {n}")
    A = _centred(A)
    gram = A @ A.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=1) / (n - 2)
    gram = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return _unit(gram)


def rsa_relation(A: np.ndarray) -> np.ndarray:
    """Return centred ranks of the pairwise cosine distances, both triangles, of unit norm."""
    upper = np.triu_indices(len(A), 1)
    ranks = rankdata(-_cosine(A)[upper])
    relation = np.zeros((len(A), len(A)))
    relation[upper] = ranks - ranks.mean()
    return _unit(relation + relation.T)


def components(A: np.ndarray) -> np.ndarray:
    """Return the scores on the leading principal components, of unit Frobenius norm."""
    u, s, _ = np.linalg.svd(_centred(A), full_matrices=False)
    return _unit((u * s)[:, :COMPONENTS])


def nuclear(products: np.ndarray) -> np.ndarray:
    """Return the sums of the singular values of matrices (..., a, b), shape (...)."""
    return np.linalg.svd(products, compute_uv=False).sum(axis=-1)


def knn_overlap(A: Embedding, B: Embedding, k: int = 10) -> float:
    """Return the mean size of the shared neighbour sets, 0 to `k`.

    The publication calls it mutual nearest neighbours; it is the mean overlap of two neighbour
    sets (cosine, self excluded) [1]_. Two unrelated embeddings of n lesions reach k²/(n - 1). Where
    distances are equal it is the mean over ties broken at random.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        The same lesions seen by two models; DataFrames are joined by ``lesion_id``.
    k : int

    Raises
    ------
    SimilarityError
        If the lesions differ, there are not more than `k`, or a row is zero or not finite.

    See Also
    --------
    sklearn.neighbors.NearestNeighbors : finds the neighbour sets of one embedding.

    References
    ----------
    .. [1] Huh et al. The platonic representation hypothesis. ICML 2024.
    """
    A, B = align({"A": A, "B": B})
    return float((neighbours(A, k) * neighbours(B, k)).sum() / len(A))


def linear_cka(A: Embedding, B: Embedding) -> float:
    """Return the debiased linear centred kernel alignment [1]_.

    The unbiased estimate of HSIC [2]_ replaces the plug-in one, which tends to 1 when there are
    more features than lesions. 1: equal up to rotation and scale. About 0: unrelated; small
    negative values occur.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        At least four lesions.

    Raises
    ------
    SimilarityError
        If the lesions differ, or an embedding is constant or not finite.

    References
    ----------
    .. [1] Kornblith et al. Similarity of neural network representations revisited. ICML 2019.
    .. [2] Song et al. Feature selection via dependence maximization. JMLR 2012.
    """
    A, B = align({"A": A, "B": B})
    return float((cka_relation(A) * cka_relation(B)).sum())


def rsa(A: Embedding, B: Embedding) -> float:
    """Return Spearman's correlation of the pairwise cosine distances [1]_.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        At least three lesions.

    Raises
    ------
    SimilarityError
        If the lesions differ, or all distances of a model are equal.

    See Also
    --------
    sklearn.metrics.pairwise_distances, scipy.stats.spearmanr

    References
    ----------
    .. [1] Kriegeskorte et al. Representational similarity analysis. Frontiers in Systems
       Neuroscience 2008.
    """
    A, B = align({"A": A, "B": B})
    return float((rsa_relation(A) * rsa_relation(B)).sum())


def procrustes(A: Embedding, B: Embedding) -> float:
    """Return the orthogonal Procrustes similarity of the leading principal components.

    Both embeddings are centred, reduced to at most :data:`COMPONENTS` components and scaled to
    unit norm; the result is the nuclear norm of their cross product, 1 minus half of the squared
    Procrustes distance [1]_. 1: one can be rotated onto the other. It is never negative and not 0
    for unrelated embeddings: read it against :func:`permutation_null`.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)

    Raises
    ------
    SimilarityError
        If the lesions differ, or an embedding is constant or not finite.

    See Also
    --------
    scipy.linalg.orthogonal_procrustes : finds the rotation and the same norm.

    References
    ----------
    .. [1] Schönemann. A generalized solution of the orthogonal Procrustes problem. Psychometrika
       1966.
    """
    A, B = align({"A": A, "B": B})
    return float(nuclear(components(A).T @ components(B)))


#: Measures by name; each takes two embeddings.
MEASURES: dict[str, Callable] = {f.__name__: f for f in (knn_overlap, linear_cka, rsa, procrustes)}


def regress_out(A: Embedding, covariates) -> np.ndarray:
    """Return what of an embedding is left when a linear effect of covariates is removed.

    Parameters
    ----------
    A : array-like, shape (n, d)
    covariates : array-like, shape (n,) or (n, c)
        For example the logarithm of the lesion's size. A Series or DataFrame is joined to a
        DataFrame by its index.

    Returns
    -------
    ndarray, shape (n, d)
        Residuals of ordinary least squares with an intercept, in the order of A.

    Raises
    ------
    SimilarityError
        If the lesions differ or a value is not a finite number.
    """
    covariates = aligned(A, covariates, "covariates", error=SimilarityError)
    covariates = numbers(covariates, "covariates", ndim=np.ndim(covariates), error=SimilarityError)
    (A,) = align({"embedding": A})
    design = np.column_stack([np.ones(len(A)), covariates])
    return A - design @ np.linalg.lstsq(design, A, rcond=None)[0]


#: Measures that are inner products of relations, and how to make one.
_RELATIONS = {"knn_overlap": neighbours, "linear_cka": cka_relation, "rsa": rsa_relation}


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

    The intervals are those of the bootstrap over patients in its form without replacement. With
    replacement, copies of a lesion would stand next to each other, and copies are neighbours in
    every model. Half of the patients, drawn without replacement, hold no copies, and the spread of
    a statistic over half-samples estimates its spread over full samples [1]_.

    Parameters
    ----------
    embeddings : mapping of model to DataFrame or array
    measure : str
        A name of :data:`MEASURES`.
    n_permutations : int
        Permutations of the lesions for the null; 0 leaves the null out. All pairs see the same
        permutations.
    n_halves : int
        Half-samples of the patients for 95% intervals; 0 leaves them out.
    groups : array-like, shape (lesions,), optional
        Patient of each lesion, joined to the first model; each lesion on its own if None.
    seed : int

    Returns
    -------
    DataFrame
        One row per pair: ``first, second, value``; with permutations ``null_mean, null_high``
        (97.5th percentile) and ``p`` (one-sided; (1 + as large) / (1 + permutations)); with
        half-samples ``low, high``.

    Raises
    ------
    KeyError
        If the measure is not known.
    SimilarityError
        As the measure; also for fewer than two models, or fewer than eight patients to halve.

    References
    ----------
    .. [1] Politis and Romano. Large sample confidence regions based on subsamples under minimal
       assumptions. Annals of Statistics 1994.
    """
    require(len(embeddings) > 1, "a comparison needs at least two models")
    arrays, n = align(embeddings), len(next(iter(embeddings.values())))
    pairs = list(itertools.combinations(range(len(arrays)), 2))
    names = itertools.combinations(embeddings, 2)
    products = _products(arrays, measure, pairs)
    values = products(np.arange(n))
    result = pd.DataFrame(names, columns=["first", "second"]).assign(value=values)
    if n_permutations:
        rng = np.random.default_rng(seed)
        null = np.array([products(rng.permutation(n)) for _ in range(n_permutations)])
        result["null_mean"] = null.mean(axis=0)
        result["null_high"] = np.quantile(null, 0.975, axis=0)
        as_large = (null >= values - 1e-6 * np.abs(values)).sum(axis=0)
        result["p"] = (1 + as_large) / (1 + n_permutations)
    if n_halves:
        codes = patients_of(groups, next(iter(embeddings.values())), error=SimilarityError)
        draws = []
        for keep in _halves(codes, n_halves, seed):
            half = _products([a[keep] for a in arrays], measure, pairs)
            draws.append(half(np.arange(keep.sum())))
        low, high = np.quantile(draws, [0.025, 0.975], axis=0) - np.mean(draws, axis=0)
        result["low"], result["high"] = values + low, values + high
    return result


def _products(arrays: list[np.ndarray], measure: str, pairs: list) -> Callable:
    """Return a function of a permutation: the measure of each pair, its second model permuted."""
    if measure not in MEASURES:
        raise KeyError(unknown("measure of similarity", measure, MEASURES))
    first, second = np.array(pairs).T
    n, m = len(arrays[0]), len(arrays)
    if measure in _RELATIONS:
        # single precision is twice as fast, and its seven digits are enough
        stack = np.stack([_RELATIONS[measure](a) for a in arrays]).astype(np.float32)
        flat, scale = stack.reshape(m, -1), 1 / n if measure == "knn_overlap" else 1.0

        def products(order: np.ndarray) -> np.ndarray:
            permuted = stack.take(order, axis=1).take(order, axis=2).reshape(m, -1)
            return (flat @ permuted.T)[first, second].astype(float) * scale

        return products
    scores = [components(a) for a in arrays]
    # Components of zero make all models as wide as the widest; they add nothing to the norm.
    wide = max(a.shape[1] for a in scores)
    side = np.hstack([np.pad(a, [(0, 0), (0, wide - a.shape[1])]) for a in scores])
    shape = m, wide, m, wide
    return lambda order: nuclear((side.T @ side[order]).reshape(shape)[first, :, second])


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
        As the measure; also if `n` is not above 0.
    """
    require(n >= 1, f"the number of permutations is above 0, not {n!r}")
    A, B = align({"A": A, "B": B})
    rng = np.random.default_rng(seed)
    names = {function: name for name, function in MEASURES.items()}
    if callable(measure) and measure not in names:
        return np.array([float(measure(A, B[rng.permutation(len(B))])) for _ in range(n)])
    products = _products([A, B], names.get(measure, measure), [(0, 1)])
    return np.array([products(rng.permutation(len(B)))[0] for _ in range(n)], dtype=float)


def _halves(codes: np.ndarray, n: int, seed: int) -> Iterator[np.ndarray]:
    """Yield `n` masks (lesions,) that keep all lesions of a random half of the patients."""
    patients = codes.max() + 1
    require(patients >= 8, f"half-sampling needs at least 8 patients, not {patients}")
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield np.isin(codes, rng.permutation(patients)[: patients // 2])
