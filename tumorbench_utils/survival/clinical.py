"""The patients of a cohort that can be analysed, with the covariates a clinician has."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from tumorbench_utils.baselines import covariate_score
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.survival.checks import SurvivalError, columns
from tumorbench_utils.survival.cox import OUTCOME


class ClinicalTable(NamedTuple):
    """What :func:`clinical_table` returns.

    Attributes
    ----------
    table : DataFrame, index = lesion_id
        All columns of the cohort; ``time_days`` and ``event`` are those of the endpoint, and the
        stage or score is a number.
    clinical : list of str
        Covariates that are known without an image: age, sex, and stage or a risk score.
    size : list of str
        The column with the size of the lesion; empty if the cohort has none.
    excluded : list of dict
        ``lesion_id, reason`` of the rows that cannot be analysed.
    """

    table: pd.DataFrame
    clinical: list[str]
    size: list[str]
    excluded: list[dict]


def clinical_table(cohort: Cohort, outcome: tuple[str, str] = OUTCOME) -> ClinicalTable:
    """Prepare a cohort for time-to-event analysis.

    Rows without an outcome or with a time of 0 days (no follow-up) are left out and listed. A score
    becomes a number, and a stage its number: 1 for I, IA or T1a, 4 for IV; its effect is then per
    step and linear in the log hazard. Sex is in lower case.

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
        If the cohort does not have the columns, or no row can be analysed.
    """
    days, event = columns(cohort.table, outcome)
    table = cohort.table.set_index("lesion_id")
    missing = table[[days, event]].isna().any(axis=1)
    unfollowed = ~missing & (table[days] <= 0)
    excluded = [{"lesion_id": i, "reason": "no outcome"} for i in table.index[missing]]
    excluded += [{"lesion_id": i, "reason": "no follow-up"} for i in table.index[unfollowed]]
    table = table[~missing & ~unfollowed].copy()
    if table.empty:
        raise SurvivalError(f"{cohort.card.title} has no row with a follow-up in {days!r}")
    table["time_days"], table["event"] = table[days].astype(float), table[event].astype(int)
    score = cohort.clinical_column
    if score:
        table[score] = _number(table, score)
    if "sex" in table:
        table["sex"] = table["sex"].str.lower()
    clinical = [c for c in ("age", "sex", score) if c in table]
    size = [cohort.size_column] if cohort.size_column else []
    return ClinicalTable(table, clinical, size, excluded)


def _number(table: pd.DataFrame, column: str) -> pd.Series:
    """Return a score as numbers, whether it comes as such, as text or as stages."""
    numbers = pd.to_numeric(table[column], errors="coerce").astype(float)
    if (numbers.isna() & table[column].notna()).any():
        return np.floor(covariate_score(table, column, 1))
    return numbers
