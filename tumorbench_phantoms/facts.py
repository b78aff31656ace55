"""What a cohort table says in a few numbers, to set phantoms beside patients."""

import numpy as np
import pandas as pd
from scipy import stats

#: Names of the facts that :func:`facts` may return.
FACTS = (
    "lesions_per_scan",
    "share_label_1",
    "share_label_missing",
    "event_share",
    "survival_2_years",
    "survival_5_years",
    "median_survival_days",
    "size_median_mm",
    "auc_size",
    "auc_clinical",
    "auc_best",
)


def facts(table: pd.DataFrame, clinical: str | None = None) -> pd.Series:
    """Return the facts by which a phantom cohort is shaped.

    Parameters
    ----------
    table : DataFrame
        A cohort's table or the result of :func:`~tumorbench_phantoms.draw`.
    clinical : str, optional
        Column with a clinical score that is ordered as text or number (a stage, a risk score).

    Returns
    -------
    Series of float
        Index: those of :data:`FACTS` that the table has. Survival is the Kaplan-Meier estimate.
        Size and clinical score are not fitted: where there is follow-up, less is taken as better
        (label 1 = alive), else more as label 1. ``auc_best`` is that of the true log-odds.
    """
    scans = table["scan_id" if "scan_id" in table else "patient"]
    result = {"lesions_per_scan": len(table) / scans.nunique()}
    label = table["label"]
    known = label.notna().to_numpy()
    follow_up = table["event"].notna().any()
    if known.any():
        y = label[known].astype(int).to_numpy()
        result |= {"share_label_1": y.mean(), "share_label_missing": 1 - known.mean()}
        sign = -1 if follow_up else 1
        scores = {"auc_size": "size_mm", "auc_clinical": clinical, "auc_best": "true_logit"}
        for name, column in scores.items():
            if column in table and table[column].notna().any():
                score = _ordered(table[column])[known]
                there = ~np.isnan(score)
                direction = 1 if name == "auc_best" else sign
                result[name] = _auc(y[there], direction * score[there])
    if follow_up:
        time, event = table["time_days"].to_numpy(float), table["event"].to_numpy(float)
        result["event_share"] = event.mean()
        data = stats.CensoredData(uncensored=time[event == 1], right=time[event == 0])
        survival = stats.ecdf(data).sf  # the Kaplan-Meier estimate
        result["survival_2_years"], result["survival_5_years"] = survival.evaluate([730, 1826])
        below = np.flatnonzero(survival.probabilities <= 0.5)
        if below.size:
            result["median_survival_days"] = survival.quantiles[below[0]]
    if "size_mm" in table:
        result["size_median_mm"] = table["size_mm"].median()
    return pd.Series({name: float(result[name]) for name in FACTS if name in result})


def _auc(y: np.ndarray, score: np.ndarray) -> float:
    """Return the area under the ROC curve: Mann-Whitney's U over all pairs of classes."""
    u = stats.mannwhitneyu(score[y == 1], score[y == 0]).statistic
    return u / ((y == 1).sum() * (y == 0).sum())


def _ordered(column: pd.Series) -> np.ndarray:
    """Return a column as numbers; text gets its rank in alphabetical order, as stages have it."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("Float64").to_numpy(float, na_value=np.nan)
    return column.rank(method="dense").to_numpy(float)
