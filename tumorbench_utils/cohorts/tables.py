"""Reading and checking tables: every fault is a :class:`CohortError` with file, row and column.

Rows are numbered as a spreadsheet shows them: the header is row 1.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
from pandera.errors import SchemaErrors

from tumorbench_utils.cohorts.cards import CohortError

#: Seeds outside this box (LPS mm) lie in no body: a field of view is at most 0.5 m wide, and the
#: origin of z is arbitrary but within the travel of a table.
COORD_LIMITS_MM = {"coord_x": 500.0, "coord_y": 500.0, "coord_z": 3000.0}

#: Columns of every cohort table, in this order.
STANDARD_COLUMNS = (
    "lesion_id",
    "patient_id",
    "scan_id",
    "image_path",
    "coord_x",
    "coord_y",
    "coord_z",
    "label",
    "time_days",
    "event",
)


#: What stands between cells where it is not a comma.
_OTHER_MARKS = re.compile(r"[;\t|]")


def text(
    *,
    unique: bool = False,
    missing: bool = False,
    pattern: str | None = None,
    values: Sequence[str] | None = None,
) -> pa.Column:
    """Return the rule for a column of text, all of it matching `pattern` or among `values`."""
    checks = [pa.Check.str_length(1, 20000)]
    if pattern is not None:
        checks.append(pa.Check.str_matches(pattern))
    if values is not None:
        checks.append(pa.Check.isin(values))
    return pa.Column(str, checks, unique=unique, nullable=missing)


def number(low: float, high: float, *, unique: bool = False, missing: bool = False) -> pa.Column:
    """Return the rule for a column of finite numbers between `low` and `high`."""
    return pa.Column(
        float, pa.Check.in_range(low, high), unique=unique, nullable=missing, coerce=True
    )


def code(*values: float, missing: bool = False) -> pa.Column:
    """Return the rule for a column of numbers that may hold `values` only."""
    return pa.Column(float, pa.Check.isin(values), nullable=missing, coerce=True)


def coordinate(name: str) -> pa.Column:
    """Return the rule for one coordinate, ``coord_x``, ``coord_y`` or ``coord_z``, in LPS mm."""
    limit = COORD_LIMITS_MM[name]
    return number(-limit, limit)


def read_csv(folder: Path, relative: str, columns: Mapping[str, pa.Column]) -> pd.DataFrame:
    """Read the checked columns of a released CSV file.

    Parameters
    ----------
    folder : Path
        Folder of the released tables.
    relative : str
        The file in it.
    columns : mapping of str to pandera Column
        Columns to read and their rules; other columns of the file are not looked at.

    Returns
    -------
    DataFrame
        `columns`, indexed by row number. Empty cells are missing.

    Raises
    ------
    CohortError
        If the file is absent or no CSV table, lacks a column, has rows of different lengths, or a
        value breaks its rule.
    """
    path = folder / relative
    header, rows = read_cells(folder, relative)
    absent = [name for name in columns if name not in header]
    if absent:
        raise CohortError(
            f"{path}: no column {', '.join(map(repr, absent))}; the file has "
            f"{', '.join(map(repr, header[:12]))}{', ...' if len(header) > 12 else ''}. Is it the "
            "table of another cohort?"
        )
    twice = [name for name in columns if header.count(name) > 1]
    if twice:
        raise CohortError(f"{path}: row 1: the column {twice[0]!r} stands there twice")
    if not rows:
        raise CohortError(f"{path}: no rows below the header")
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=header, dtype=object)
    return check(frame[list(columns)], columns, str(path))


def read_cells(folder: Path, relative: str) -> tuple[list[str], dict[int, list[str | None]]]:
    """Return the header and the rows of a CSV file, by row number, each as long as the header.

    Lines without any cell are passed over. Blank cells are None.

    Raises
    ------
    CohortError
        If the file is absent, empty or no CSV table, or rows have different lengths.
    """
    path = folder / relative
    if not path.is_file():
        beside = sorted(p.name for p in path.parent.glob("*")) if path.parent.is_dir() else []
        there = f"{path.parent} holds {', '.join(beside[:8]) or 'nothing'}"
        if not path.parent.is_dir():
            there = f"there is no folder {path.parent}"
        raise CohortError(f"{path}: no such file; {there}")
    rows: dict[int, list[str | None]] = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, None)
            if header is not None and len(header) == 1 and (mark := _OTHER_MARKS.search(header[0])):
                raise CohortError(
                    f"{path}: row 1: cells are parted by {mark[0]!r}; save the table as CSV with "
                    "commas between cells and points in numbers"
                )
            for number_, cells in enumerate(reader, start=2):
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise CohortError(
                        f"{path}: row {number_}: {len(cells)} cells, but the header has "
                        f"{len(header)}"
                    )
                rows[number_] = [cell if cell.strip() else None for cell in cells]
    except (csv.Error, UnicodeDecodeError) as error:
        raise CohortError(
            f"{path}: not a CSV table in UTF-8 ({error}); save it as CSV UTF-8"
        ) from None
    if header is None:
        raise CohortError(f"{path}: the file is empty")
    return header, rows


def check(
    frame: pd.DataFrame,
    columns: Mapping[str, pa.Column],
    where: str,
    called: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return a table with its columns converted, or say what breaks which rule.

    Parameters
    ----------
    frame : DataFrame
        The index is what a row is called in messages.
    columns : mapping of str to pandera Column
    where : str
        What the table is called in messages.
    called : mapping of str to str, optional
        What columns are called in messages, where the file has other names.

    Raises
    ------
    CohortError
        Naming up to five faults by row and column.
    """
    for name, rule in columns.items():
        wrong = frame[name].dtype.kind if name in frame else ""
        if wrong == "c" or (wrong == "b" and name in COORD_LIMITS_MM):
            raise CohortError(
                f"{where}: column {(called or {}).get(name, name)!r} holds "
                f"{'complex numbers' if wrong == 'c' else 'true and false'}, not {rule.dtype}"
            )
    try:
        checked = pa.DataFrameSchema(dict(columns)).validate(frame, lazy=True)
    except SchemaErrors as error:
        raise CohortError(f"{where}: {_faults(error, frame, called or {})}") from None
    for name, rule in columns.items():
        if rule.dtype.type == np.dtype(float):
            bad = (checked[name].isna() & frame[name].notna()) | np.isinf(checked[name])
            if bad.any():
                row = bad.index[bad][0]
                raise CohortError(
                    f"{where}: row {row}, column {(called or {}).get(name, name)!r}: "
                    f"{frame.loc[row, name]!r} is not a finite number"
                )
    return checked


def _faults(error: SchemaErrors, frame: pd.DataFrame, called: Mapping[str, str]) -> str:
    """Return what broke which rule, most five faults, as one line."""
    cases = error.failure_cases
    absent = cases.loc[cases["check"] == "column_in_dataframe", "failure_case"]
    if len(absent):
        return f"no column {', '.join(repr(name) for name in absent)}"
    cases = cases[cases["index"].notna()].drop_duplicates(["column", "index"])
    if cases.empty:
        return "; ".join(str(line) for line in error.failure_cases["failure_case"].head(5))
    shown = []
    for case in cases.head(5).itertuples():
        value, rule = frame.loc[case.index, case.column], str(case.check)
        if rule == "not_nullable":
            said = "the cell is empty"
        elif rule == "field_uniqueness":
            said = f"{_short(value)} stands in more than one row"
        elif "dtype" in rule:
            said = f"{_short(value)} is not {'a number' if 'float' in rule else 'text'}"
        else:
            said = (
                f"{_short(value)} breaks the rule {rule if len(rule) <= 80 else rule[:77] + '...'}"
            )
        name = called.get(case.column, case.column)
        shown.append(f"row {case.index}, column {name!r}: {said}")
    more = f"; and {len(cases) - 5} more" if len(cases) > 5 else ""
    return "; ".join(shown) + more


def _short(value, show=repr) -> str:
    """Return how a value is shown in a message: at most 80 characters."""
    shown = show(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


_COMMON = {
    "lesion_id": text(unique=True),
    "patient_id": text(),
    "scan_id": text(),
    "image_path": text(),
    **{name: coordinate(name) for name in COORD_LIMITS_MM},
    "label": code(0, 1, missing=True),
    "time_days": number(0, 40000, missing=True),
    "event": code(0, 1, missing=True),
    "label_reference": code(0, 1, missing=True),
}


def check_standard(table: pd.DataFrame, where: str) -> pd.DataFrame:
    """Check the columns that every cohort has and put them first.

    Parameters
    ----------
    table : DataFrame
        With at least :data:`STANDARD_COLUMNS`. Other columns are passed through.
    where : str
        What the table is called in messages.

    Returns
    -------
    DataFrame
        Index 0, 1, ...; ``label`` and ``event`` are Int64, coordinates and ``time_days`` float64.
        ``label_reference``, the published label, is added where it is absent: the same as
        ``label``.

    Raises
    ------
    CohortError
        If a column is missing or breaks its rule, a time stands without an event or the other way
        round, or a scan belongs to two patients.
    """
    absent = [name for name in STANDARD_COLUMNS if name not in table]
    if absent:
        raise CohortError(f"{where}: no column {', '.join(map(repr, absent))}")
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise CohortError(f"{where}: the column {twice!r} stands there twice")
    if table.empty:
        raise CohortError(f"{where}: no rows")
    rules = {name: rule for name, rule in _COMMON.items() if name in table}
    plain = table.reset_index(drop=True)
    checked = check(plain[list(rules)], rules, where)
    lonely = checked["time_days"].isna() != checked["event"].isna()
    if lonely.any():
        row = lonely.index[lonely][0]
        raise CohortError(
            f"{where}: row {row}, column 'event': time_days and event must both be there or both "
            "be missing"
        )
    first = checked.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    apart = checked["patient_id"] != checked["scan_id"].map(first)
    if apart.any():
        row = apart.idxmax()
        raise CohortError(
            f"{where}: row {row}, column 'patient_id': the scan {checked.loc[row, 'scan_id']!r} "
            f"belongs to several patients, {first[checked.loc[row, 'scan_id']]!r} and "
            f"{checked.loc[row, 'patient_id']!r}"
        )
    if "label_reference" not in checked:
        checked["label_reference"] = checked["label"]
    integers = dict.fromkeys(("label", "event", "label_reference"), "Int64")
    rest = [name for name in plain if name not in checked]
    result = pd.concat([checked.astype(integers), plain[rest]], axis=1)
    result.attrs = dict(table.attrs)
    return result
