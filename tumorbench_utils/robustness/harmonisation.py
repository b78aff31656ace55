"""ComBat: an offset and a scale per feature and scanner, learned on training rows only.

Johnson, Li and Rabinovic (2007), parametric priors, without covariates; Fortin et al. (2018)
brought it to imaging. Packages were looked at first (November 2026): neuroCombat 0.2.12, to which
the tests compare, cannot apply a fit to new rows under numpy 2, neuroHarmonize forbids numpy 2,
and combatlearn 2.3 takes the moments of the priors over scanners instead of features.
"""

import numpy as np
import pandas as pd

from tumorbench_utils.robustness.agreement import RobustnessError

#: The iteration stops when offset and scale change by less than this share.
_TOLERANCE = 1e-6
_STEPS = 500


class ComBat:
    """Empirical Bayes harmonisation of features between scanners.

    Fitted on training rows and then frozen: ``transform`` looks at one row and its scanner alone.

    Attributes
    ----------
    scanners_ : list
        The scanners of the training rows.
    offset_, scale_ : ndarray, shape (scanners, d)
        In units of the feature's spread within scanners; 0 and 1 change nothing.
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
        self.scanners_ = sorted(set(names), key=str)
        if len(self.scanners_) < 2:
            raise RobustnessError("ComBat compares scanners; the training rows come from one only")
        rows = [np.flatnonzero(names == name) for name in self.scanners_]
        few = [name for name, own in zip(self.scanners_, rows, strict=True) if len(own) < 2]
        if few:
            raise RobustnessError(
                f"the scanner {few[0]!r} has one training row; its scale needs two or more"
            )
        inner = sum(((values[own] - values[own].mean(axis=0)) ** 2).sum(axis=0) for own in rows)
        spread = np.sqrt(inner / len(values))
        # Features that do not vary within scanners have no scale; they stay as they are.
        self._varies = spread > 1e-12 * np.maximum(1, np.abs(values).max(axis=0))
        self._mean, self._spread = values.mean(axis=0), np.where(self._varies, spread, 1)
        self.offset_ = np.zeros((len(rows), values.shape[1]))
        self.scale_ = np.ones_like(self.offset_)
        z = ((values - self._mean) / self._spread)[:, self._varies]
        for k, own in enumerate(rows):
            if z.shape[1]:
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
            If a scanner was not among the training rows: its offset is not known. Also if values
            are missing or there are more or fewer features than in training.
        """
        values, names = _checked(X, scanner)
        if values.shape[1] != self.offset_.shape[1]:
            raise RobustnessError(
                f"fitted on {self.offset_.shape[1]} features, but {values.shape[1]} came"
            )
        unseen = sorted(set(names) - set(self.scanners_), key=str)
        if unseen:
            raise RobustnessError(
                f"the scanner {unseen[0]!r} was not among the training rows (they have "
                f"{', '.join(map(str, self.scanners_))}); what it adds cannot be known"
            )
        which = np.array([self.scanners_.index(name) for name in names], dtype=int)
        z = (values - self._mean) / self._spread
        cleaned = (z - self.offset_[which]) / self.scale_[which] * self._spread + self._mean
        result = np.where(self._varies, cleaned, values)
        return pd.DataFrame(result, X.index, X.columns) if isinstance(X, pd.DataFrame) else result


def _checked(X, scanner) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(X, pd.DataFrame) and isinstance(scanner, pd.Series):
        absent = X.index.difference(scanner.index)
        if len(absent) or not scanner.index.is_unique:
            what = f"{absent[0]!r} has none" if len(absent) else "a row has two"
            raise RobustnessError(f"every row needs one scanner; {what}")
        scanner = scanner.loc[X.index]
    try:
        values = np.asarray(X, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RobustnessError(f"features must be numbers: {error}") from error
    names = np.asarray(scanner, dtype=object)
    if values.ndim != 2 or names.shape != (len(values),):
        raise RobustnessError(
            f"X has the shape (n, d) and scanner (n,), not {values.shape} and {names.shape}"
        )
    if not np.isfinite(values).all() or pd.isna(names).any():
        raise RobustnessError("a feature or a scanner is missing or infinite")
    return values, names


def _shrunken(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return offset and variance of one scanner's rows, drawn towards those of all features."""
    n, offset, variance = len(z), z.mean(axis=0), z.var(axis=0, ddof=1)
    if z.shape[1] < 2:
        return offset, variance
    centre, width = offset.mean(), offset.var(ddof=1)
    m, v = variance.mean(), variance.var(ddof=1)
    if v == 0:
        return (n * width * offset + variance * centre) / (n * width + variance), variance
    shape, rate = 2 + m**2 / v, m + m**3 / v
    new_offset, new_variance = offset, variance
    for _ in range(_STEPS):
        before = new_offset, new_variance
        new_offset = (n * width * offset + new_variance * centre) / (n * width + new_variance)
        squares = (n - 1) * variance + n * (offset - new_offset) ** 2
        new_variance = (rate + squares / 2) / (n / 2 + shape - 1)
        change = [
            np.abs(new - old).max()
            for new, old in zip((new_offset, new_variance), before, strict=True)
        ]
        if max(change) < _TOLERANCE:
            break
    return new_offset, new_variance
