"""Means over repeated random splits, whose cases overlap."""

from numbers import Real

import numpy as np
from scipy import stats as sps

from tumorbench_utils.stats.checks import checked_level, numbers


def published_interval(scores) -> tuple[float, float]:
    """Return the interval of the published benchmark: mean ± 1.96 sd / sqrt(n).

    It treats the splits as independent. They share most of their cases, so it is far too narrow;
    see :func:`corrected_interval`. The standard deviation has n - 1 in its denominator: with n the
    sums of squares of the published AUCs would not be whole multiples of their smallest step
    (``data/published/README.md``).
    """
    scores = numbers(scores, "scores")
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
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not np.isfinite(value) or value <= 0:
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
    scores = numbers(scores, "scores")
    error = corrected_error(
        scores.std(ddof=1) if len(scores) > 1 else 0, len(scores), n_train, n_test
    )
    half = sps.t.ppf((1 + checked_level(level)) / 2, len(scores) - 1) * error
    return float(scores.mean() - half), float(scores.mean() + half)


def corrected_p(mean, sd, n_splits: int, n_train: int, n_test: int, *, null: float = 0.5):
    """Test means over repeated splits with the corrected resampled t test of Nadeau and Bengio.

    Parameters
    ----------
    mean, sd : float or array-like
        Mean and standard deviation (n - 1) over the splits.
    n_splits, n_train, n_test : int
    null : float
        Mean under the hypothesis.

    Returns
    -------
    float or ndarray
        Two-sided p values.
    """
    error = corrected_error(sd, n_splits, n_train, n_test)
    if (error <= 0).any():
        raise ValueError("a standard deviation of 0 leaves nothing to test with")
    return 2 * sps.t.sf(np.abs((np.asarray(mean) - null) / error), n_splits - 1)
