"""What a cohort table says in a few numbers, to set phantoms beside patients."""

import numpy as np
import pandas as pd

from tumorbench_utils.stats import auc

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
                result[name] = auc(y[there], direction * score[there])
    if follow_up:
        time, event = table["time_days"].to_numpy(float), table["event"].to_numpy(float)
        result["event_share"] = event.mean()
        days, survival = _kaplan_meier(time, event)
        result["survival_2_years"] = survival[np.searchsorted(days, 730, side="right") - 1]
        result["survival_5_years"] = survival[np.searchsorted(days, 1826, side="right") - 1]
        below = np.flatnonzero(survival <= 0.5)
        if below.size:
            result["median_survival_days"] = days[below[0]]
    if "size_mm" in table:
        result["size_median_mm"] = table["size_mm"].median()
    return pd.Series({name: float(result[name]) for name in FACTS if name in result})


def _ordered(column: pd.Series) -> np.ndarray:
    """Return a column as numbers; text gets its rank in alphabetical order, as stages have it."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype("Float64").to_numpy(float, na_value=np.nan)
    return column.rank(method="dense").to_numpy(float)


def _kaplan_meier(time: np.ndarray, event: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the days 0 and of all ends of follow-up, and the survival after each of them."""
    days, position = np.unique(time, return_inverse=True)
    deaths = np.bincount(position, weights=event)
    at_risk = len(time) - np.concatenate([[0], np.cumsum(np.bincount(position))[:-1]])
    return np.append(0.0, days), np.append(1.0, np.cumprod(1 - deaths / at_risk))
