"""What the readers of the released tables share."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts.cards import CohortError
from tumorbench_utils.cohorts.tables import STANDARD_COLUMNS, coordinate, read_csv

#: Rules of the columns that hold the seed, LPS mm.
SEED = {f"coord{axis}": coordinate(f"coord_{axis.lower()}") for axis in "XYZ"}

#: A DICOM unique identifier.
UID = r"[0-9]+(?:\.[0-9]+)+"


def image_path(raw: pd.Series, tail: str, names: pd.Series, where: str, column: str) -> pd.Series:
    """Return the end of each path that matches `tail`; its group ``scan`` must be `names`."""
    pattern = re.compile(rf"(?:^|.*/)(?P<path>{tail})")
    result = {}
    for row, value in raw.items():
        match = None if ".." in value.split("/") else pattern.fullmatch(value)
        if match is None:
            raise CohortError(
                f"{where}: row {row}, column {column!r}: {value!r} is not a path of this cohort "
                "that stays in its folder"
            )
        if match["scan"] != names[row]:
            raise CohortError(
                f"{where}: row {row}, column {column!r}: the path names {match['scan']!r}, the row "
                f"is {names[row]!r}"
            )
        result[row] = match["path"]
    return pd.Series(result, dtype=object).reindex(raw.index)


def with_parts(
    folder: Path, main: str, parts: dict[str, str], key: str, columns: dict
) -> tuple[pd.DataFrame, pd.Series]:
    """Read a table and the three stored parts of it; return it and the part of each row."""
    frame = read_csv(folder, main, columns)
    rows = {value: row for row, value in frame[key].items()}
    part_of = pd.Series(index=frame.index, dtype=object)
    for part, relative in parts.items():
        piece = read_csv(folder, relative, {name: columns[name] for name in (key, *SEED)})
        for row, values in piece.iterrows():
            home = rows.get(values[key])
            place = f"{folder / relative}: row {row}, column {key!r}"
            if home is None:
                raise CohortError(f"{place}: {values[key]!r} is not in {main}")
            if pd.notna(part_of[home]):
                raise CohortError(f"{place}: {values[key]!r} is also in {parts[part_of[home]]}")
            for name in SEED:
                if not np.isclose(values[name], frame.loc[home, name], rtol=0, atol=1e-3):
                    raise CohortError(
                        f"{folder / relative}: row {row}, column {name!r}: {values[name]} differs "
                        f"from {frame.loc[home, name]} in {main}"
                    )
            part_of[home] = part
    if part_of.isna().any():
        row = part_of.index[part_of.isna()][0]
        raise CohortError(
            f"{folder / main}: row {row}, column {key!r}: {frame.loc[row, key]!r} is in none of "
            f"{', '.join(parts.values())}"
        )
    return frame, part_of


def two_years(dead: pd.Series, reached: pd.Series) -> pd.Series:
    """Return 1 where two years are reached, 0 where dead before, else missing."""
    label = pd.Series(pd.NA, index=dead.index, dtype="Int64")
    label[reached] = 1
    label[~reached & (dead == 1)] = 0
    return label


def assemble(
    frame: pd.DataFrame, *, label, label_reference, split, used, **columns
) -> pd.DataFrame:
    """Put a table together, standard columns first, sorted by lesion."""
    for axis in "XYZ":
        columns[f"coord_{axis.lower()}"] = frame[f"coord{axis}"]
    columns.setdefault("time_days", np.nan)
    columns.setdefault("event", np.nan)
    rest = [name for name in columns if name not in STANDARD_COLUMNS]
    columns |= {"label": label, "label_reference": label_reference, "split": split}
    columns["used_in_reference"] = used
    order = (*STANDARD_COLUMNS, "label_reference", "split", "used_in_reference", *rest)
    table = pd.DataFrame({name: columns[name] for name in order}, index=frame.index)
    return table.sort_values("lesion_id", ignore_index=True)


def blank(
    values: pd.Series, wrong: pd.Series, lesions: pd.Series, said: str
) -> tuple[pd.Series, list[dict]]:
    """Return `values` with the wrong ones missing, and the list of what was wrong."""
    listed = [
        {"lesion_id": lesions[row], "column": values.name, "value": values[row], "note": said}
        for row in values.index[wrong]
    ]
    return values.mask(wrong), listed


def note(lesions, column: str, value, said: str) -> list[dict]:
    """Return entries of the list of anomalies, one per lesion."""
    return [{"lesion_id": x, "column": column, "value": value, "note": said} for x in lesions]
