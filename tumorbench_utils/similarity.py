"""How alike two models see the same lesions: measures, nulls and intervals.

Three of the four measures have one form. Each model is turned into a lesion x lesion matrix, its
*relation* (who is a neighbour of whom; which pairs are alike; ranks of the distances), and the
measure is an inner product of two relations. Relabelling the lesions permutes rows and columns of
a relation and changes nothing else, so a permutation null for many models at once costs one matrix
product per permutation.

Embeddings are arrays (n lesions, d) or DataFrames indexed by ``lesion_id``; DataFrames are joined
by their index, never by position.
"""

import itertools
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tumorbench_utils.settings import unknown

Embedding = np.ndarray | pd.DataFrame


class SimilarityError(ValueError):
    """Embeddings that cannot be compared."""


def _array(A: Embedding, name: str = "embedding") -> np.ndarray:
    """Return embeddings as float64 (n, d) after looking for what would give a silent NaN."""
    try:
        values = np.asarray(A, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SimilarityError(f"{name} must hold numbers: {error}") from error
    if values.ndim != 2 or 0 in values.shape:
        raise SimilarityError(f"{name} must have the shape (lesions, features), not {values.shape}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise SimilarityError(f"{name} has values that are not finite, first in row {row}")
    return values


def align(embeddings: Mapping[str, Embedding]) -> dict[str, np.ndarray]:
    """Return the embeddings of several models as arrays whose rows are the same lesions.

    Parameters
    ----------
    embeddings : mapping of model to DataFrame (index ``lesion_id``) or array
        DataFrames are brought into the order of the first; arrays must have equally many rows.

    Raises
    ------
    SimilarityError
        If lesions stand twice, models hold different lesions, or arrays and DataFrames are mixed.
    """
    frames = [isinstance(a, pd.DataFrame) for a in embeddings.values()]
    if any(frames) and not all(frames):
        raise SimilarityError("arrays and DataFrames cannot be joined; give all of one kind")
    arrays: dict[str, np.ndarray] = {}
    first = None
    for name, values in embeddings.items():
        if isinstance(values, pd.DataFrame):
            if not values.index.is_unique:
                twice = values.index[values.index.duplicated()][0]
                raise SimilarityError(f"{name} holds the lesion {twice!r} twice")
            first = values.index if first is None else first
            apart = first.symmetric_difference(values.index)
            if len(apart):
                raise SimilarityError(
                    f"{name} and the first model hold different lesions: {len(apart)} stand in "
                    f"one only, for example {apart[0]!r}"
                )
            values = values.reindex(first)
        arrays[name] = _array(values, name)
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SimilarityError(f"the models hold different numbers of lesions: {lengths}")
    return arrays


def _pair(A: Embedding, B: Embedding) -> tuple[np.ndarray, np.ndarray]:
    arrays = align({"A": A, "B": B})
    return arrays["A"], arrays["B"]


def _cosine(A: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(A, axis=1)
    if not norms.all():
        raise SimilarityError(
            f"row {int(np.flatnonzero(norms == 0)[0])} is all zero and has no direction; a cosine "
            "is not defined for it"
        )
    unit = A / norms[:, None]
    return unit @ unit.T


def neighbours(A: Embedding, k: int = 10) -> np.ndarray:
    """Return which lesions are among the `k` nearest of each, by cosine, self excluded.

    Parameters
    ----------
    A : array-like, shape (n, d)
    k : int
        Less than n.

    Returns
    -------
    ndarray of float, shape (n, n)
        1 where the column is a neighbour of the row. Equal distances: the earlier lesion.

    Raises
    ------
    SimilarityError
        If there are not more than `k` rows, or a row is all zero.
    """
    A = _array(A)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SimilarityError(f"k must be a whole number above 0, not {k!r}")
    if k >= len(A):
        raise SimilarityError(f"{len(A)} lesions have no {k} neighbours other than themselves")
    closeness = _cosine(A)
    np.fill_diagonal(closeness, -np.inf)
    nearest = np.argsort(-closeness, axis=1, kind="stable")[:, :k]
    relation = np.zeros_like(closeness)
    np.put_along_axis(relation, nearest, 1.0, axis=1)
    return relation


def _unit(relation: np.ndarray, what: str) -> np.ndarray:
    norm = np.linalg.norm(relation)
    # The relation of a constant embedding is rounding error around zero.
    if norm <= 1e-12 * len(relation):
        raise SimilarityError(f"all lesions have the same embedding; {what} is not defined")
    return relation / norm


def _cka_relation(A: np.ndarray) -> np.ndarray:
    """Return the U-centred Gram matrix (Székely and Rizzo 2014) of unit norm.

    Its inner products are those of the unbiased estimate of HSIC (Song et al. 2012).
    """
    n = len(A)
    if n < 4:
        raise SimilarityError(f"debiased CKA needs at least 4 lesions, not {n}")
    A = A - A.mean(axis=0)
    scale = np.abs(A).max()
    gram = (A / scale) @ (A / scale).T if scale > 0 else np.zeros((n, n))
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=1) / (n - 2)
    gram = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return _unit(gram, "CKA")


def _rsa_relation(A: np.ndarray) -> np.ndarray:
    """Return centred ranks of the pairwise cosine distances, both triangles, of unit norm."""
    n = len(A)
    if n < 3:
        raise SimilarityError(f"RSA needs at least 3 lesions, not {n}")
    upper = np.triu_indices(n, 1)
    ranks = rankdata(-_cosine(A)[upper])
    relation = np.zeros((n, n))
    relation[upper] = ranks - ranks.mean()
    return _unit(relation + relation.T, "RSA")


def knn_overlap(A: Embedding, B: Embedding, k: int = 10) -> float:
    """Return the mean size of the shared neighbour sets, 0 to `k`.

    The publication calls it mutual nearest neighbours; it is the mean overlap of two neighbour
    sets (cosine, self excluded). Two unrelated embeddings of n lesions reach k²/(n - 1).

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        The same lesions seen by two models; DataFrames are joined by ``lesion_id``.
    k : int

    Raises
    ------
    SimilarityError
        If the lesions differ, there are not more than `k`, or a row is zero or not finite.
    """
    A, B = _pair(A, B)
    return float((neighbours(A, k) * neighbours(B, k)).sum() / len(A))


def linear_cka(A: Embedding, B: Embedding) -> float:
    """Return the debiased linear centred kernel alignment (Kornblith et al. 2019).

    The unbiased estimate of HSIC (Song et al. 2012) replaces the plug-in one, which tends to 1 when
    there are more features than lesions. 1: equal up to rotation and scale. About 0: unrelated;
    small negative values occur.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        At least four lesions.

    Raises
    ------
    SimilarityError
        If the lesions differ, or an embedding is constant or not finite.
    """
    A, B = _pair(A, B)
    return float((_cka_relation(A) * _cka_relation(B)).sum())


def rsa(A: Embedding, B: Embedding) -> float:
    """Return Spearman's correlation of the pairwise cosine distances (Kriegeskorte et al. 2008).

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
        At least three lesions.

    Raises
    ------
    SimilarityError
        If the lesions differ, or all distances of a model are equal.
    """
    A, B = _pair(A, B)
    return float((_rsa_relation(A) * _rsa_relation(B)).sum())


def _components(A: np.ndarray, components: int) -> np.ndarray:
    """Return the scores on the leading principal components, of unit Frobenius norm."""
    A = A - A.mean(axis=0)
    u, s, _ = np.linalg.svd(A, full_matrices=False)
    return _unit((u * s)[:, :components], "Procrustes similarity")


def procrustes(A: Embedding, B: Embedding, components: int = 50) -> float:
    """Return the orthogonal Procrustes similarity of the leading principal components.

    Both embeddings are centred, reduced and scaled to unit norm; the result is the nuclear norm of
    their cross product, 1 minus half of the squared Procrustes distance. 1: one can be rotated
    onto the other. It is never negative and not 0 for unrelated embeddings: read it against
    :func:`permutation_null`.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)
    components : int
        Principal components that are kept; all if there are fewer.
    """
    A, B = _pair(A, B)
    return _nuclear(_components(A, components), _components(B, components))


def _nuclear(A: np.ndarray, B: np.ndarray) -> float:
    return float(np.linalg.svd(A.T @ B, compute_uv=False).sum())


#: Measures by name; each takes two embeddings.
MEASURES: dict[str, Callable] = {
    "knn_overlap": knn_overlap,
    "linear_cka": linear_cka,
    "rsa": rsa,
    "procrustes": procrustes,
}

#: Measures that are inner products of relations: how to make one, and the factor in front.
_RELATIONS = {
    "knn_overlap": (neighbours, lambda n: 1 / n),
    "linear_cka": (_cka_relation, lambda n: 1.0),
    "rsa": (_rsa_relation, lambda n: 1.0),
}


def _name(measure: str | Callable) -> str | None:
    """Return the name of a known measure, or None for a user's own function."""
    if callable(measure):
        return next((name for name, known in MEASURES.items() if known is measure), None)
    if measure not in MEASURES:
        raise KeyError(unknown("measure of similarity", measure, MEASURES))
    return measure


def pairwise(
    embeddings: Mapping[str, Embedding], measure: str, *, n_permutations: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Compare every two models, with a permutation test if asked.

    Parameters
    ----------
    embeddings : mapping of model to DataFrame or array
    measure : str
        A name of :data:`MEASURES`.
    n_permutations : int
        Permutations of the lesions for the null; 0 leaves the null out. All pairs see the same
        permutations.
    seed : int

    Returns
    -------
    DataFrame
        One row per pair: ``first, second, value`` and, with permutations, ``null_mean,
        null_high`` (97.5th percentile) and ``p`` (one-sided; (1 + larger) / (1 + permutations)).
    """
    arrays = align(embeddings)
    name = _name(measure)
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
        result["p"] = (1 + (null >= values - 1e-12).sum(axis=0)) / (1 + n_permutations)
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
            permuted = stack[:, order[:, None], order[None, :]].reshape(len(arrays), -1)
            return (flat @ permuted.T)[first, second] * scale

        return products
    reduced = [_components(a, 50) for a in arrays]

    def rotated(order: np.ndarray) -> np.ndarray:
        moved = [b[order] for b in reduced]
        return np.array(
            [_nuclear(reduced[i], moved[j]) for i, j in zip(first, second, strict=True)]
        )

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
    A, B = _pair(A, B)
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

    A bootstrap with replacement puts copies of a lesion next to each other, and copies are always
    neighbours. Half of the patients drawn without replacement have no copies, and the spread of a
    statistic over half-samples estimates its spread over full samples (Politis and Romano 1994).

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
    A, B = _pair(A, B)
    groups = np.arange(len(A)) if groups is None else np.asarray(groups)
    if len(groups) != len(A):
        raise SimilarityError(f"groups has {len(groups)} values for {len(A)} lesions")
    patients, codes = np.unique(groups, return_inverse=True)
    if len(patients) < 8:
        raise SimilarityError(f"half-sampling needs at least 8 patients, not {len(patients)}")
    function = measure if callable(measure) else MEASURES[_name(measure)]
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(n):
        half = rng.permutation(len(patients))[: len(patients) // 2]
        keep = np.isin(codes, half)
        draws.append(function(A[keep], B[keep]))
    value = float(function(A, B))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2]) - np.mean(draws)
    return value, float(value + low), float(value + high)


def regress_out(A: Embedding, covariates) -> np.ndarray:
    """Return what of an embedding is left when a linear effect of covariates is removed.

    Parameters
    ----------
    A : array-like, shape (n, d)
    covariates : array-like, shape (n,) or (n, c)
        For example the logarithm of the lesion's size.

    Returns
    -------
    ndarray, shape (n, d)
        Residuals of ordinary least squares with an intercept.
    """
    A = _array(A)
    covariates = np.asarray(covariates, dtype=np.float64)
    covariates = _array(covariates.reshape(len(covariates), -1), "covariates")
    if len(covariates) != len(A):
        raise SimilarityError(f"covariates has {len(covariates)} rows for {len(A)} lesions")
    design = np.column_stack([np.ones(len(A)), covariates])
    return A - design @ np.linalg.lstsq(design, A, rcond=None)[0]
