"""Means over repeated random splits, whose cases overlap."""

import numpy as np
from scipy import stats as sps

from tumorbench_utils import checks


def published_interval(scores) -> tuple[float, float]:
    """Return the interval of the published benchmark: mean ± 1.96 sd / sqrt(n).

    It treats the splits as independent. They share most of their cases, so it is far too narrow;
    see :func:`corrected_interval`. The standard deviation has n - 1 in its denominator: with n the
    sums of squares of the published AUCs would not be whole multiples of their smallest step
    (``data/published/README.md``).
    """
    scores = checks.numbers(scores, "scores")
    half = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    return float(scores.mean() - half), float(scores.mean() + half)


def corrected_error(sd, n_splits: int, n_train: int, n_test: int):
    """Return the standard error of a mean over repeated splits after Nadeau and Bengio [1]_.

    Splits share cases, so their scores are correlated and a mean over J of them varies more than
    1/J of one. The correlation cannot be estimated from one sample; the correction takes it as
    ``n_test / (n_train + n_test)``, which adds ``n_test / n_train`` to the 1/J.

    Parameters
    ----------
    sd : float or array-like
        Standard deviation over the splits, with ``n_splits - 1`` in its denominator.
    n_splits, n_train, n_test : int
        Number of splits and the cases on either side of one.

    Raises
    ------
    InputError
        If there is one split only, or no case on a side.

    References
    ----------
    .. [1] Nadeau C, Bengio Y. Inference for the generalization error. Mach Learn 2003;52:239-281.
    """
    if not (n_splits > 1 and n_train > 0 and n_test > 0):
        raise checks.InputError("two splits are needed, and numbers above 0 of cases on both sides")
    return np.asarray(sd) * np.sqrt(1 / n_splits + n_test / n_train)


def corrected_interval(
    scores, n_train: int, n_test: int, *, level: float = 0.95
) -> tuple[float, float]:
    """Return the interval of a mean over repeated random splits, corrected for their overlap.

    Student's quantile with J - 1 degrees of freedom times :func:`corrected_error`.

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
    InputError
        If there are fewer than two scores, a score is missing, or a size is not positive.

    See Also
    --------
    sklearn.model_selection.cross_val_score : gives the scores, without an interval.
    """
    scores = checks.numbers(scores, "scores")
    error = corrected_error(1, len(scores), n_train, n_test) * scores.std(ddof=1)
    half = sps.t.ppf((1 + checks.share(level)) / 2, len(scores) - 1) * error
    return float(scores.mean() - half), float(scores.mean() + half)


def corrected_p(mean, sd, n_splits: int, n_train: int, n_test: int, *, null: float = 0.5):
    """Test means over repeated splits with the corrected resampled t test of Nadeau and Bengio.

    Parameters
    ----------
    mean, sd : float or array-like
        Mean and standard deviation (n - 1) over the splits.
    n_splits, n_train, n_test : int
        As for :func:`corrected_error`.
    null : float
        Mean under the hypothesis.

    Returns
    -------
    float or ndarray
        Two-sided p values.
    """
    error = corrected_error(sd, n_splits, n_train, n_test)
    if not (error > 0).all():
        raise checks.InputError("a standard deviation of 0 leaves nothing to test with")
    return 2 * sps.t.sf(np.abs((np.asarray(mean) - null) / error), n_splits - 1)
