"""What a ruler and a clinician's table achieve: scores from covariates, without any fitting."""

import re

import numpy as np
import pandas as pd

from tumorbench_utils import checks, stats
from tumorbench_utils.checks import InputError
from tumorbench_utils.cohorts import Cohort

_SIGNS = {"1": 1, "1.0": 1, "higher": 1, "-1": -1, "-1.0": -1, "lower": -1}
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

    See Also
    --------
    sklearn.metrics.roc_auc_score : what a score is put into.

    Raises
    ------
    ValueError
        If the column is absent or holds text that is no stage, or the direction is none of the
        four.
    """
    checks.columns(table, [covariate])
    if str(direction) not in _SIGNS:
        raise InputError(f"direction must be 1 or 'higher', -1 or 'lower', not {direction!r}")
    values = table[covariate]
    if values.dtype.kind not in "biuf":
        values = values.astype(object).map(lambda v: _rank(v, covariate), na_action="ignore")
    numbers = pd.Series(pd.to_numeric(values).to_numpy(float, na_value=np.nan), table.index)
    return (_SIGNS[str(direction)] * numbers).rename(f"{covariate} score")


def _rank(value, covariate: str) -> float:
    """Return the place of a stage, or the number itself."""
    if isinstance(value, bool | int | float | np.number | np.bool_):
        return float(value)
    name = str(value).strip()
    match = _STAGE.fullmatch("0" if name.lower() in ("tis", "is") else name)
    if match is None:
        raise InputError(f"column {covariate!r}: {value!r} is neither a number nor a stage")
    letter = " abcd".index(match[2].lower() or " ")
    return (_ROMAN.get(match[1].upper()) or int(match[1])) + 0.1 * letter


def rulers(cohort: Cohort) -> dict[str, tuple[str, int]]:
    """Return the column and direction of ``size`` and ``clinical``, where the cohort has them."""
    card = cohort.card
    size = {"size": (cohort.size_column, card.size_direction)}
    found = size | {"clinical": (cohort.clinical_column, card.clinical_direction)}
    return {name: known for name, known in found.items() if known[0] is not None}


def cohort_baselines(cohort: Cohort) -> pd.DataFrame:
    """Return what size and the clinical score of a cohort achieve.

    Parameters
    ----------
    cohort : Cohort

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
    labelled, rows = cohort.table[cohort.table["label"].notna()], []
    for baseline, (column, direction) in rulers(cohort).items() if len(labelled) else ():
        score = covariate_score(labelled, column, direction)
        there, score = labelled[score.notna()], score.dropna()
        auc = stats.bootstrap_auc(there["label"].astype(int), score, there["patient_id"])
        counts = (len(there), there["patient_id"].nunique(), len(labelled) - len(there))
        rows.append((baseline, column, direction, *auc, *counts))
    columns = "baseline column direction auc low high n patients missing".split()
    return pd.DataFrame(rows, columns=columns)
