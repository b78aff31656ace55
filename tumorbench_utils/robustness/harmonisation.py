"""ComBat: an offset and a scale per feature and scanner, learned on training rows only.

Parametric priors, without covariates. Packages were looked at first (November 2026): neuroCombat
0.2.12, to which the tests compare, cannot apply a fit to new rows under numpy 2, neuroHarmonize
forbids numpy 2, and combatlearn 2.3 takes the moments of the priors over scanners instead of
features.
"""

import numpy as np
import pandas as pd

from tumorbench_utils import checks
from tumorbench_utils.robustness.agreement import RobustnessError

#: The iteration stops when offset and scale change by less than this share.
_TOLERANCE = 1e-6
_STEPS = 500


class ComBat:
    """Empirical Bayes harmonisation of features between scanners.

    Fitted on training rows and then frozen: ``transform`` looks at one row and its scanner alone.

    Attributes
    ----------
    scanners_ : Index
        The scanners of the training rows.
    offset_, scale_ : ndarray, shape (scanners, d)
        In units of the feature's spread within scanners; 0 and 1 change nothing.

    References
    ----------
    .. [1] Johnson, Li and Rabinovic (2007), Adjusting batch effects in microarray expression data
       using empirical Bayes methods. Biostatistics 8(1).
    .. [2] Fortin et al. (2018), Harmonization of cortical thickness measurements across scanners
       and sites. NeuroImage 167.
    """

    def fit(self, X, scanner) -> "ComBat":
        """Learn offsets and scales.

        Parameters
        ----------
        X : DataFrame or array, shape (n, d)
        scanner : Series or array, shape (n,)
            Scanner of every row; a Series is joined to a DataFrame by its index.

        Raises
        ------
        RobustnessError
            If there are fewer than two scanners, a scanner has fewer than two rows, or a value is
            missing.
        """
        values, names = _checked(X, scanner)
        counts = pd.Series(names).value_counts().sort_index(key=lambda index: index.map(str))
        if len(counts) < 2 or counts.min() < 2:
            raise RobustnessError(
                "ComBat compares scanners and learns a scale from two rows or more of each; the "
                f"training rows have {counts.to_dict()}"
            )
        self.scanners_ = counts.index
        which = self.scanners_.get_indexer(names)
        rows = [np.flatnonzero(which == k) for k in range(len(counts))]
        inner = sum(len(own) * values[own].var(axis=0) for own in rows)
        spread = np.sqrt(inner / len(values))
        # Features that do not vary within scanners have no scale; they stay as they are.
        self._varies = spread > 1e-12 * np.abs(values).max(axis=0)
        self._mean, self._spread = values.mean(axis=0), np.where(self._varies, spread, 1)
        self.offset_ = np.zeros((len(rows), values.shape[1]))
        self.scale_ = np.ones_like(self.offset_)
        z = ((values - self._mean) / self._spread)[:, self._varies]
        for k, own in enumerate(rows):
            offset, variance = _shrunken(z[own])
            self.offset_[k, self._varies], self.scale_[k, self._varies] = offset, np.sqrt(variance)
        return self

    def transform(self, X, scanner):
        """Return the rows with the offset and scale of their scanners taken out.

        Parameters
        ----------
        X : DataFrame or array, shape (n, d)
        scanner : Series or array, shape (n,)

        Returns
        -------
        DataFrame if `X` is one, else ndarray, float64

        Raises
        ------
        RobustnessError
            If a scanner was not among the training rows: its offset is not known. Also if values
            are missing or there are more or fewer features than in training.
        """
        values, names = _checked(X, scanner)
        which = self.scanners_.get_indexer(names)
        if values.shape[1] != self.offset_.shape[1] or (which < 0).any():
            unseen = ", ".join(pd.unique(names[which < 0]).astype(str)) or "none"
            raise RobustnessError(
                f"fitted on {self.offset_.shape[1]} features, {values.shape[1]} came; scanners not "
                f"among the training rows: {unseen}. What they add cannot be known"
            )
        z = (values - self._mean) / self._spread
        cleaned = (z - self.offset_[which]) / self.scale_[which] * self._spread + self._mean
        result = np.where(self._varies, cleaned, values)
        return pd.DataFrame(result, X.index, X.columns) if isinstance(X, pd.DataFrame) else result


def _checked(X, scanner) -> tuple[np.ndarray, np.ndarray]:
    """Return features and scanners in one order; a Series of scanners may have further rows."""
    if isinstance(X, pd.DataFrame) and isinstance(scanner, pd.Series):
        scanner = scanner[scanner.index.isin(X.index)]
    names = checks.aligned(X, scanner, "scanner", error=RobustnessError)
    if pd.isna(names).any():
        raise RobustnessError("a scanner is missing; leave that row out")
    values = checks.numbers(X, "the features", ndim=2, error=RobustnessError)
    return values, np.asarray(names, dtype=object)


def _shrunken(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and variance of one scanner's rows, drawn towards those of all features."""
    n, offset, variance = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
    if z.shape[1] < 2:
        return offset, variance
    # Priors over the features: a normal one of the offsets, an inverse gamma one of the variances.
    centre, width = offset.mean(), offset.var(ddof=1)
    m, v = variance.mean(), max(variance.var(ddof=1), 1e-200)
    shape, rate = 2 + m**2 / v, m + m**3 / v
    found = np.array([offset, variance])
    for _ in range(_STEPS):
        before = found
        new = (n * width * offset + before[1] * centre) / (n * width + before[1])
        squares = (n - 1) * variance + n * (offset - new) ** 2
        found = np.array([new, (rate + squares / 2) / (n / 2 + shape - 1)])
        if np.abs(found - before).max() < _TOLERANCE:
            break
    return found[0], found[1]
