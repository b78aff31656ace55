"""Embeddings of the same lesions by several models, joined and looked at before they are used."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

Embedding = np.ndarray | pd.DataFrame


class SimilarityError(ValueError):
    """Embeddings that cannot be compared."""


def as_array(A: Embedding, name: str = "embedding") -> np.ndarray:
    """Return embeddings as float64 (n, d) after looking for what would give a silent NaN.

    Raises
    ------
    SimilarityError
        If they are not real numbers, not of two dimensions, empty or not finite.
    """
    try:
        values = np.asarray(A)
        strings = values.dtype.kind == "O" and any(isinstance(v, str) for v in values.ravel())
        if values.dtype.kind not in "fiubO" or strings:
            raise TypeError(f"values of type {'str' if strings else values.dtype.name}")
        values = values.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "; lesion_id is the index, not a column" if isinstance(A, pd.DataFrame) else ""
        raise SimilarityError(f"{name} must hold numbers: {error}{hint}") from error
    if values.ndim != 2 or 0 in values.shape:
        raise SimilarityError(f"{name} must have the shape (lesions, features), not {values.shape}")
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        which = f"lesion {A.index[row]!r}" if isinstance(A, pd.DataFrame) else f"row {row}"
        raise SimilarityError(f"{name} has values that are not finite, first in {which}")
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
            apart = first.symmetric_difference(values.index, sort=False)
            if len(apart):
                raise SimilarityError(
                    f"{name} and the first model hold different lesions: {len(apart)} stand in "
                    f"one only, for example {apart[0]!r}"
                )
            values = values.reindex(first)
        arrays[name] = as_array(values, name)
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise SimilarityError(f"the models hold different numbers of lesions: {lengths}")
    return arrays


def pair(A: Embedding, B: Embedding) -> tuple[np.ndarray, np.ndarray]:
    """Return two embeddings as :func:`align` does."""
    arrays = align({"A": A, "B": B})
    return arrays["A"], arrays["B"]
