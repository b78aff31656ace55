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
            If a value or a scanner is missing.
        """
        values, self.scanners_, which = _checked(X, scanner)
        rows = [np.flatnonzero(which == k) for k in range(len(self.scanners_))]
        inner = sum(len(own) * values[own].var(axis=0) for own in rows)
        spread = np.sqrt(inner / len(values))
        # Features that do not vary within scanners have no scale; they stay as they are.
        self._varies = spread > 1e-12 * np.abs(values).max(axis=0)
        self._mean, self._spread = values.mean(axis=0), np.where(self._varies, spread, 1)
        self.offset_ = np.zeros((len(rows), values.shape[1]))
        self.scale_ = np.ones_like(self.offset_)
        z = ((values - self._mean) / self._spread)[:, self._varies]
        for k, own in enumerate(rows):
            self.offset_[k, self._varies], variance = _shrunken(z[own])
            self.scale_[k, self._varies] = np.sqrt(variance)
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
            If a value is missing or a scanner was not among the training rows.
        """
        values, _, which = _checked(X, scanner, self.scanners_)
        z = (values - self._mean) / self._spread
        cleaned = (z - self.offset_[which]) / self.scale_[which] * self._spread + self._mean
        result = np.where(self._varies, cleaned, values)
        return pd.DataFrame(result, X.index, X.columns) if isinstance(X, pd.DataFrame) else result


def _checked(X, scanner, known: pd.Index | None = None) -> tuple[np.ndarray, pd.Index, np.ndarray]:
    """Return features, scanners, and which of these every row has, if it has a known one."""
    if isinstance(X, pd.DataFrame) and isinstance(scanner, pd.Series):
        scanner = scanner[scanner.index.isin(X.index)]  # it may have further rows
    names = checks.aligned(X, scanner, "scanner", error=RobustnessError)
    names = pd.Index(np.asarray(names, dtype=object))
    if known is None:
        known = names.unique().dropna().sort_values(key=lambda index: index.map(str))
    which = known.get_indexer(names)
    if (which < 0).any():
        unseen = ", ".join(map(str, names[which < 0].unique()))
        raise RobustnessError(f"scanners missing or not among the training rows: {unseen}")
    return checks.numbers(X, "the features", ndim=2, error=RobustnessError), known, which


def _shrunken(z: np.ndarray) -> np.ndarray:
    """Return offset and variance of one scanner's rows, drawn towards those of all features."""
    n, offset, variance = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
    if z.shape[1] < 2:
        return np.array([offset, variance])
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
    return found
