"""The patients of a cohort that can be analysed, with the covariates a clinician has."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from tumorbench_utils.baselines import covariate_score
from tumorbench_utils.checks import columns
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.survival.cox import OUTCOME
from tumorbench_utils.survival.outcome import SurvivalError, require


class ClinicalTable(NamedTuple):
    """What :func:`clinical_table` returns.

    Attributes
    ----------
    table : DataFrame, index = lesion_id
        One row a patient, all columns of the cohort; ``time_days`` and ``event`` are those of the
        endpoint, and the stage or score is a number.
    clinical : list of str
        Covariates that are known without an image: age, sex, and stage or a risk score.
    size : list of str
        The column with the size of the lesion; empty if the cohort has none.
    excluded : list of dict
        ``lesion_id, reason`` of the rows that are left out.
    """

    table: pd.DataFrame
    clinical: list[str]
    size: list[str]
    excluded: list[dict]


def clinical_table(cohort: Cohort, outcome: tuple[str, str] = OUTCOME) -> ClinicalTable:
    """Prepare a cohort for time-to-event analysis: one row a patient, since a death counts once.

    Rows without an outcome or with a time of 0 days (no follow-up) are left out and listed; so are
    the smaller lesions of a patient with several (all but the first, if sizes are not known). A
    score becomes a number, and a stage its number: 1 for I, IA or T1a, 4 for IV; its effect is then
    per step and linear in the log hazard. Sex is in lower case where it is text.

    Parameters
    ----------
    cohort : Cohort
        One with survival times.
    outcome : (str, str)
        Columns with days and event, for another endpoint than death; for example ``("dfs_days",
        "dfs_event")``.

    Returns
    -------
    ClinicalTable

    Raises
    ------
    SurvivalError
        If the cohort does not have the columns, no row can be analysed, or a patient has the event
        in one row and not in another.
    """
    days, event = columns(cohort.table, outcome, error=SurvivalError)
    table, size = cohort.table.set_index("lesion_id"), cohort.size_column
    missing = table[[days, event]].isna().any(axis=1)
    reason = pd.Series(None, table.index, dtype=object).mask(missing, "no outcome")
    reason = reason.mask(~missing & (table[days] <= 0).fillna(False), "no follow-up")
    followed = table[reason.isna()]
    require(len(followed), f"{cohort.card.title} has no row with a follow-up in {days!r}")
    if "patient_id" in followed:
        events = followed.groupby("patient_id")[event].nunique()
        require((events < 2).all(), f"patient {events.idxmax()!r} has two values of {event!r}")
        largest = followed.sort_values(size, ascending=False, kind="stable") if size else followed
        others = largest.index[largest["patient_id"].duplicated()]
        reason[others] = "another lesion of the patient"
    table = table[reason.isna()].copy()
    table["time_days"], table["event"] = table[days].astype(float), table[event].astype(int)
    score = cohort.clinical_column
    if score:
        try:
            table[score] = pd.to_numeric(table[score]).astype(float)
        except (ValueError, TypeError):  # stages
            table[score] = np.floor(covariate_score(table, score, 1))
    if "sex" in table and not pd.api.types.is_numeric_dtype(table["sex"]):
        table["sex"] = table["sex"].str.lower()
    clinical = [c for c in ("age", "sex", score) if c in table]
    excluded = [{"lesion_id": i, "reason": r} for i, r in reason.dropna().items()]
    return ClinicalTable(table, clinical, [size] if size else [], excluded)
