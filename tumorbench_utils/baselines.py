"""What a ruler and a clinician's table achieve: scores from covariates, without any fitting."""

import re

import numpy as np
import pandas as pd

from tumorbench_utils import stats
from tumorbench_utils.cohorts import Cohort

_DIRECTIONS = {1: 1, -1: -1, "higher": 1, "lower": -1}
_STAGE = re.compile(r"[cp]?(?:stage\s*|T|N|M)?(IV|III|II|I|[0-4])([A-Da-d]?)", re.IGNORECASE)
_ROMAN = {"I": 1, "II": 2, "III": 3, "IV": 4}


def covariate_score(table: pd.DataFrame, covariate: str, direction: int | str) -> pd.Series:
    """Return a covariate as a score for label 1: nothing is fitted.

    Parameters
    ----------
    table : DataFrame
    covariate : str
        A numeric or boolean column, or one of stages (``I`` to ``IV`` with or without a letter,
        ``0`` to ``4``, ``T1a``, ``Tis``, ...), which are put in their order: the number counts
        before the letter. Other text is refused.
    direction : {1, -1, "higher", "lower"}
        1 or ``"higher"`` if higher values speak for label 1, -1 or ``"lower"`` if lower ones do.

    Returns
    -------
    Series of float64
        Index of `table`; higher means that label 1 is more likely. A missing covariate gives a
        missing score: nothing is filled in.

    Raises
    ------
    ValueError
        If the column is absent or holds text that is no stage or an infinite number, or the
        direction is none of the four.
    """
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"table is a DataFrame, not {type(table).__name__}")
    if covariate not in table:
        raise ValueError(f"the table has no column {covariate!r}; it has {list(table.columns)}")
    hashable = isinstance(direction, str | int | float | np.number)
    if not hashable or isinstance(direction, bool) or direction not in _DIRECTIONS:
        raise ValueError(
            f"direction must be 1 or 'higher', -1 or 'lower', not {direction!r}: does a higher "
            f"{covariate} speak for label 1?"
        )
    values = table[covariate]
    if isinstance(values, pd.DataFrame):
        raise ValueError(f"the column {covariate!r} stands in the table twice")
    if pd.api.types.is_complex_dtype(values):
        raise ValueError(f"the column {covariate!r} holds complex numbers, which have no order")
    if pd.api.types.is_bool_dtype(values) or pd.api.types.is_numeric_dtype(values):
        numbers = values.astype("Float64").astype("float64")
    else:
        numbers = values.map(lambda value: _rank(value, covariate)).astype("float64")
    if np.isinf(numbers).any():
        raise ValueError(f"the column {covariate!r} holds infinite values")
    return (_DIRECTIONS[direction] * numbers).rename(f"{covariate} score")


def _rank(value, covariate: str) -> float:
    """Return the place of a stage, or the number itself; missing stays missing."""
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return np.nan
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    name = str(value).strip()
    if name.lower() in ("tis", "is"):
        return 0.0
    match = _STAGE.fullmatch(name)
    if match is None:
        raise ValueError(
            f"column {covariate!r}: {value!r} ({type(value).__name__}) is neither a number nor a "
            "stage; a score needs an order, so map it to numbers first"
        )
    number = _ROMAN.get(match[1].upper()) or int(match[1])
    return number + (0.1 * ("abcd".index(match[2].lower()) + 1) if match[2] else 0.0)


def cohort_baselines(cohort: Cohort, *, n: int = 2000, seed: int = 0) -> pd.DataFrame:
    """Return what size and the clinical score of a cohort achieve.

    Parameters
    ----------
    cohort : Cohort
    n : int
        Number of bootstrap resamples.
    seed : int

    Returns
    -------
    DataFrame
        One row per baseline that the table allows: ``baseline`` (size or clinical), ``column``,
        ``direction`` (1 or -1), ``auc``, ``low``, ``high`` (95% percentile interval, patients
        resampled), ``n`` (lesions with label and covariate), ``patients`` and ``missing`` (labelled
        lesions without the covariate, left out of this row).

    Raises
    ------
    ValueError
        If a covariate is no score or a class is absent among the lesions that have it.
    """
    card, labelled = cohort.card, cohort.table[cohort.table["label"].notna()]
    wanted = (
        ("size", cohort.size_column, card.size_direction),
        ("clinical", cohort.clinical_column, card.clinical_direction),
    )
    rows = []
    for baseline, column, direction in wanted:
        if column is None or labelled.empty:
            continue
        score = covariate_score(labelled, column, direction)
        there = labelled[score.notna()]
        auc, low, high = stats.bootstrap_auc(
            there["label"].astype(int), score[there.index], there["patient_id"], n=n, seed=seed
        )
        rows.append(
            {
                "baseline": baseline,
                "column": column,
                "direction": direction,
                "auc": auc,
                "low": low,
                "high": high,
                "n": len(there),
                "patients": there["patient_id"].nunique(),
                "missing": len(labelled) - len(there),
            }
        )
    columns = "baseline column direction auc low high n patients missing".split()
    return pd.DataFrame(rows, columns=columns)
