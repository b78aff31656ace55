"""A Cox model for more features than patients: principal components, then a ridge."""

import numpy as np

from tumorbench_utils.survival.checks import SurvivalError
from tumorbench_utils.survival.ridge import RiskSets, fit_ridge

#: Ridge penalties that are tried, in events, the largest first.
PENALTIES = np.logspace(4, 0, 9)

#: Principal components of an embedding that enter the model.
COMPONENTS = 32

#: Penalty of a clinical covariate, in events: keeps a level that no training patient died with
#: finite and changes little else.
CLINICAL_PENALTY = 1.0


class Standardiser:
    """Mean and standard deviation of training patients; a constant column becomes 0."""

    def __init__(self, x: np.ndarray):
        self.mean, spread = x.mean(axis=0), x.std(axis=0)
        constant = spread <= 1e-9 * np.abs(x).max(axis=0)
        self.scale = np.where(constant, 0, 1 / np.where(constant, 1, spread))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return standardised columns."""
        return (x - self.mean) * self.scale


class Components:
    """Leading principal components of standardised features, learnt on training patients.

    All components are divided by the standard deviation of the first, so that the ridge presses
    hardest on those that vary least.
    """

    def __init__(self, x: np.ndarray):
        self.standardise = Standardiser(x)
        z = self.standardise(x)
        if not z.any():
            raise SurvivalError("every feature of X is constant among the training patients")
        # fewer patients than features: the eigenvectors of the small product matrix will do
        wide = z.shape[0] < z.shape[1]
        values, vectors = np.linalg.eigh(z @ z.T if wide else z.T @ z)
        order = np.argsort(values)[::-1][:COMPONENTS]
        order = order[values[order] > 1e-9 * values.max()]
        first = np.sqrt(values[order[0]] / len(z))
        vectors = vectors[:, order]
        self.axes = (z.T @ vectors / np.sqrt(values[order]) if wide else vectors) / first

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the components of patients, shape (n, at most 32)."""
        return self.standardise(x) @ self.axes


def patient_folds(events: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Return the fold of each row: patients are whole, and those with an event are shared out."""
    _, codes = np.unique(groups, return_inverse=True)
    died = np.bincount(codes, weights=events) > 0
    order = np.random.default_rng(seed).permutation(len(died))
    order = order[np.argsort(~died[order], kind="stable")]
    fold = np.empty(len(died), dtype=int)
    fold[order] = np.arange(len(died)) % folds
    return fold[codes]


class RidgeCox:
    """Cox model of features and clinical covariates with a ridge on the features.

    The penalty of the features is the one with the largest cross-validated partial likelihood
    (Verweij and van Houwelingen 1993) in folds of the training patients, no patient on two sides.
    The clinical covariates carry the fixed small penalty :data:`CLINICAL_PENALTY`.

    Parameters
    ----------
    features : ndarray, shape (n, p)
        Principal components; p may be 0.
    covariates : ndarray, shape (n, k)
        k may be 0.
    times, events, groups : ndarray, shape (n,)
    folds : int
    seed : int
        Of the folds.
    """

    def __init__(self, features, covariates, times, events, groups, *, folds: int = 5, seed: int):
        self.standardise = Standardiser(covariates)
        x = np.hstack([self.standardise(covariates), features])
        self._features = features.shape[1]
        sets = RiskSets(times, events)
        self.penalty = None
        if self._features:
            self.penalty = self._choose(x, times, events, groups, sets, folds, seed)
        self.coefficients = fit_ridge(sets, x, self._weights(self.penalty))
        self.train_risk = x @ self.coefficients
        self.baseline = sets.baseline(self.train_risk)

    def _weights(self, penalty: float | None) -> np.ndarray:
        clinical = len(self.standardise.mean)
        return np.r_[np.full(clinical, CLINICAL_PENALTY), np.full(self._features, penalty or 0.0)]

    def _choose(self, x, times, events, groups, sets, folds, seed) -> float:
        died = len(np.unique(groups[events]))
        if died < folds:
            raise SurvivalError(
                f"{died} training patients with an event are too few to choose a penalty in "
                f"{folds} folds"
            )
        fold = patient_folds(events, groups, folds, seed)
        gain = np.zeros(len(PENALTIES))
        for inner in (np.flatnonzero(fold != k) for k in range(folds)):
            part = RiskSets(times[inner], events[inner])
            beta = None
            for i, penalty in enumerate(PENALTIES):
                beta = fit_ridge(part, x[inner], self._weights(penalty), beta)
                risk = x @ beta
                gain[i] += sets.log_likelihood(risk) - part.log_likelihood(risk[inner])
        return float(PENALTIES[gain.argmax()])

    def risk(self, features: np.ndarray, covariates: np.ndarray) -> np.ndarray:
        """Return log hazards; higher means an earlier event."""
        return np.hstack([self.standardise(covariates), features]) @ self.coefficients
