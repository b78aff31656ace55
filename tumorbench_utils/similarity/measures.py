"""Four measures of how alike two embeddings of the same lesions are."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from tumorbench_utils.similarity.inputs import Embedding, SimilarityError, align, as_array, pair

#: Principal components that Procrustes looks at.
COMPONENTS = 50

#: Digits of a cosine beyond which only rounding differs; it must not decide who is a neighbour.
_DIGITS = 14


def _cosine(A: np.ndarray, what: str) -> np.ndarray:
    """Return the cosine of every two rows, shape (n, n), or say why `what` is not defined."""
    largest = np.abs(A).max(axis=1, keepdims=True)
    if not largest.all():
        raise SimilarityError(
            f"row {int(np.flatnonzero(largest == 0)[0])} is all zero and has no direction; a "
            "cosine is not defined for it"
        )
    unit = A / largest  # first, so that no square over- or underflows
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosine = np.round(unit @ unit.T, _DIGITS)
    if cosine.min() >= 1 - 10 * 10.0**-_DIGITS:
        raise SimilarityError(
            f"all lesions have the same embedding up to its length; {what} is not defined"
        )
    return cosine


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
        If there are not more than `k` rows, a row is all zero, or all rows point the same way.
    """
    A = as_array(A)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
        raise SimilarityError(f"k must be a whole number above 0, not {k!r}")
    if k >= len(A):
        raise SimilarityError(f"{len(A)} lesions have no {k} neighbours other than themselves")
    closeness = _cosine(A, "a neighbour")
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
    if n < 4:
        raise SimilarityError(f"debiased CKA needs at least 4 lesions, not {n}")
    A = _centred(A)
    gram = A @ A.T
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=1) / (n - 2)
    gram = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return _unit(gram, "CKA")


def rsa_relation(A: np.ndarray) -> np.ndarray:
    """Return centred ranks of the pairwise cosine distances, both triangles, of unit norm."""
    n = len(A)
    if n < 3:
        raise SimilarityError(f"RSA needs at least 3 lesions, not {n}")
    upper = np.triu_indices(n, 1)
    ranks = rankdata(-_cosine(A, "RSA")[upper])
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
    A, B = pair(A, B)
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
    A, B = pair(A, B)
    return float((cka_relation(A) * cka_relation(B)).sum())


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
    A, B = pair(A, B)
    return float((rsa_relation(A) * rsa_relation(B)).sum())


def components(A: np.ndarray, k: int = COMPONENTS) -> np.ndarray:
    """Return the scores on the leading `k` principal components, of unit Frobenius norm."""
    u, s, _ = np.linalg.svd(_centred(A), full_matrices=False)
    return _unit((u * s)[:, :k], "Procrustes similarity")


def procrustes(A: Embedding, B: Embedding) -> float:
    """Return the orthogonal Procrustes similarity of the leading principal components.

    Both embeddings are centred, reduced to at most :data:`COMPONENTS` components and scaled to
    unit norm; the result is the nuclear norm of their cross product, 1 minus half of the squared
    Procrustes distance (Schönemann 1966). 1: one can be rotated onto the other. It is never
    negative and not 0 for unrelated embeddings: read it against :func:`permutation_null`.

    Parameters
    ----------
    A, B : array-like, shape (n, d_A) and (n, d_B)

    Raises
    ------
    SimilarityError
        If the lesions differ, or an embedding is constant or not finite.
    """
    A, B = pair(A, B)
    return float(nuclear(components(A).T @ components(B)))


def nuclear(products: np.ndarray) -> np.ndarray:
    """Return the sums of the singular values of matrices (..., a, b), shape (...)."""
    return np.linalg.svd(products, compute_uv=False).sum(axis=-1)


#: Measures by name; each takes two embeddings.
MEASURES: dict[str, Callable] = {
    "knn_overlap": knn_overlap,
    "linear_cka": linear_cka,
    "rsa": rsa,
    "procrustes": procrustes,
}


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
    if isinstance(covariates, pd.Series):
        covariates = covariates.to_frame()
    if isinstance(covariates, pd.DataFrame) and isinstance(A, pd.DataFrame):
        A, covariates = align({"embedding": A, "covariates": covariates}).values()
    elif np.ndim(covariates) == 1:
        covariates = np.asarray(covariates)[:, None]
    A, covariates = as_array(A), as_array(covariates, "covariates")
    if len(covariates) != len(A):
        raise SimilarityError(f"covariates has {len(covariates)} rows for {len(A)} lesions")
    design = np.column_stack([np.ones(len(A)), covariates])
    return A - design @ np.linalg.lstsq(design, A, rcond=None)[0]
