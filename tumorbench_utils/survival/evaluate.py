"""Cross-validated survival prediction from an embedding, clinical covariates, or both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from tumorbench_utils.checks import aligned
from tumorbench_utils.splits import Split, grouped_splits
from tumorbench_utils.stats import Estimate, corrected_interval
from tumorbench_utils.survival.cox import design
from tumorbench_utils.survival.curves import kaplan_meier
from tumorbench_utils.survival.metrics import concordance, integrated_brier, time_dependent_auc
from tumorbench_utils.survival.model import Components, RidgeCox
from tumorbench_utils.survival.outcome import SurvivalError, beside, days, outcome, require

#: Horizons of the time-dependent AUC and of the predicted survival, days: one, two, three years.
HORIZONS = (365, 730, 1095)


@dataclass(frozen=True, eq=False)
class SurvivalResult:
    """What :func:`evaluate` found.

    Attributes
    ----------
    scores : DataFrame
        ``split, model, metric, value``: ``harrell`` and ``uno`` (concordance up to `tau`),
        ``auc_365``, ``auc_730``, ``auc_1095`` (time-dependent AUC; left out where some split has
        no patients for it) and ``brier`` (integrated up to `tau`; lower is better), on the test
        patients of each split. The model ``"Kaplan-Meier"`` predicts the same curve for everybody:
        the Brier score to beat.
    predictions : DataFrame
        ``split, row, model, risk, high_risk, survival_365, ...`` of every test patient: `row` is
        its position, `risk` the log hazard, `high_risk` whether it lies above the median of the
        training patients, ``survival_365`` the predicted survival at 365 days.
    n, events : int
        Patients analysed, and events among them.
    left_out : int
        Rows left out because a covariate is missing, or as another row of the same patient.
    tau : float
        Days; shared by all models and splits.
    n_train, n_test : float
        Mean number of patients trained and tested on.
    """

    scores: pd.DataFrame
    predictions: pd.DataFrame
    n: int
    events: int
    left_out: int
    tau: float
    n_train: float
    n_test: float

    def _estimate(self, values: pd.Series) -> Estimate:
        interval = corrected_interval(values.to_numpy(), self.n_train, self.n_test)
        return Estimate(values.mean(), *interval, "Nadeau-Bengio")

    @property
    def summary(self) -> pd.DataFrame:
        """``model, metric, mean, low, high``: mean over the splits, corrected 95% interval.

        The interval is that of Nadeau and Bengio (2003) for splits that overlap, cut at 0 and 1.
        """
        models = self.scores.groupby(["model", "metric"], sort=False)["value"]
        rows = [(*names, *self._estimate(values)) for names, values in models]
        table = pd.DataFrame(rows, columns=["model", "metric", "mean", "low", "high"])
        return table.assign(low=table["low"].clip(0, 1), high=table["high"].clip(0, 1))

    def difference(self, first: str, second: str, metric: str = "uno") -> Estimate:
        """Return first minus second on the same splits, with an interval as in `summary`."""
        values = self.scores.pivot(index="split", columns=["model", "metric"], values="value")
        return self._estimate(values[first, metric] - values[second, metric])


def evaluate(
    X,
    time,
    event,
    covariates=None,
    splits: Sequence[Split] | None = None,
    *,
    groups=None,
    tau: float | None = None,
    seed: int = 0,
) -> SurvivalResult:
    """Cross-validate Cox models of an embedding, of clinical covariates, and of both together.

    In every split all of this is learnt from ``train`` and ``val`` together: scaling, the leading
    32 principal components of the embedding, the ridge penalty (by cross-validated partial
    likelihood in five folds [1]_), the coefficients, the baseline hazard, the censoring
    distribution and the cut between low and high risk. The test patients are only scored.

    Parameters
    ----------
    X : array-like or DataFrame, shape (n, d), or None
        Embedding. None evaluates the covariates alone.
    time, event : array-like, shape (n,)
        Days, above 0; 1 = event seen, 0 = censored. One row a patient, or give `groups`.
    covariates : DataFrame or array, shape (n, k), optional
        Clinical covariates, numeric or (in a DataFrame) categorical, as in :func:`~.cox`. Rows that
        lack one are left out of all models, and counted.
    splits : list of Split, optional
        Positions of train, val and test rows. If None, ten patient-grouped splits stratified by
        event.
    groups : array-like, shape (n,), optional
        Patient of each row. A death must count once: of a patient with several rows (lesions) the
        first complete one is analysed and the others are left out. If None every row is a patient.
    tau : float, optional
        Concordances and Brier scores look at the first `tau` days. If None: the time that a tenth
        of the patients was followed beyond, or less if a split needs it. Give the same one to
        compare results on different rows.
    seed : int
        Of the splits, if there are none, and of the folds within them. The folds go by the order
        of the patients' names (`groups`, else the index of `time`), not by that of the rows.

    Returns
    -------
    SurvivalResult

    Raises
    ------
    SurvivalError
        If an input is not valid, rows differ, a split overlaps or has a patient on two sides, or a
        part of a split has too few events.

    References
    ----------
    .. [1] Verweij and van Houwelingen. Cross-validation in survival analysis. Statistics in
       Medicine 1993.
    """
    times, events = outcome(time, event)
    features = np.empty((len(times), 0)) if X is None else beside(time, X, "X", ndim=2)
    clinical = np.empty((len(times), 0))
    if covariates is not None:
        covariates = aligned(time, covariates, "covariates", error=SurvivalError)
        clinical = design(pd.DataFrame(covariates).rename(columns=str)).to_numpy()
    require(features.shape[1] + clinical.shape[1], "give an embedding X, covariates, or both")
    # by name where rows have one, so that the folds do not depend on the order of the rows
    named = isinstance(time, pd.Series) and time.index.is_unique
    rows = time.index if named else range(len(times))
    groups = rows if groups is None else aligned(time, groups, "groups", error=SurvivalError)
    patients = pd.factorize(np.asarray(groups), sort=True)[0]
    require((patients >= 0).all(), f"groups is missing in row {patients.argmin()}")
    keep = ~np.isnan(clinical).any(axis=1)
    keep[keep] = ~pd.Series(patients[keep]).duplicated().to_numpy()
    if splits is None:
        table = pd.DataFrame({"patient_id": patients, "event": events.astype(int)})
        splits = grouped_splits(table, seed=seed, stratify=None if events.all() else "event")
    parts = [_part(k, split, keep, events, patients) for k, split in enumerate(splits)]
    last = min(times[train].max() for train, _ in parts)
    if tau is None:
        tau = min(np.quantile(times[keep], 0.9), 0.99 * last)
    tau = days(tau, "tau").item()
    horizons = [d for d in HORIZONS if d < tau and all(_seen(times, events, d, p) for p in parts)]
    d, k = features.shape[1], clinical.shape[1]
    models = {"clinical": (0, k), "embedding": (d, 0)}
    models = {name: used for name, used in models.items() if any(used)}
    models |= {"clinical + embedding": (d, k)} if len(models) == 2 else {}
    scores, predictions = [], []
    grid = np.linspace(tau / 50, tau, 50)
    with threadpool_limits(1):  # threads cost more than they gain on matrices this small
        for split, (train, test) in enumerate(parts):
            trained, tested = (times[train], events[train]), (times[test], events[test])
            everybody = kaplan_meier(*trained).at(grid)  # one curve for all
            brier = integrated_brier(*tested, everybody, grid, train=trained)
            scores.append((split, "Kaplan-Meier", "brier", brier))
            components = Components(features[train])(features) if d else features
            for name, (d_used, k_used) in models.items():
                f, c = components[:, :d_used], clinical[:, :k_used]
                model = RidgeCox(f[train], c[train], *trained, patients[train], seed)
                risk = model.risk(f[test], c[test])
                alive = model.survival(risk, grid)
                values = {
                    "harrell": concordance(*tested, risk, tau=tau),
                    "uno": concordance(*tested, risk, "uno", tau, train=trained),
                    "brier": integrated_brier(*tested, alive, grid, train=trained),
                }
                if horizons:
                    auc = time_dependent_auc(*tested, risk, horizons, train=trained)
                    values |= {f"auc_{day:g}": value for day, value in auc.items()}
                scores += [(split, name, metric, value) for metric, value in values.items()]
                frame = pd.DataFrame({"split": split, "row": test, "model": name, "risk": risk})
                frame["high_risk"] = risk > np.median(model.train_risk)
                frame[[f"survival_{d}" for d in horizons]] = model.survival(risk, horizons)
                predictions.append(frame)
    scores = pd.DataFrame(scores, columns=["split", "model", "metric", "value"])
    predictions = pd.concat(predictions, ignore_index=True)
    counts = int(keep.sum()), int(events[keep].sum()), int((~keep).sum())
    sizes = np.mean([[len(train), len(test)] for train, test in parts], axis=0).tolist()
    return SurvivalResult(scores, predictions, *counts, tau, *sizes)


def _part(number, split, keep, events, patients) -> tuple[np.ndarray, np.ndarray]:
    """Return positions of the training and test rows of a split, checked."""
    train, test = np.r_[split.train, split.val].astype(int), np.asarray(split.test, dtype=int)
    if min(*train, *test, 0) < 0 or np.intersect1d(patients[train], patients[test]).size:
        raise SurvivalError(f"split {number} has a patient in training and in test, or a row < 0")
    train, test = np.sort(train[keep[train]]), np.sort(test[keep[test]])
    seen = events[train].any() and events[test].any()
    require(seen, f"split {number} has no event in training or in test; stratify by event")
    return train, test


def _seen(times, events, day, part) -> bool:
    """Return whether some test patient had the event by a day, and one was followed beyond."""
    own, seen = times[part[1]], events[part[1]]
    return bool((seen & (own <= day)).any() and (own > day).any())
