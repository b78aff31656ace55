"""Tables as text, and what may stand in their columns; faults are named by file, row and column.

Rows are numbered as a spreadsheet shows them: the header is row 1.
"""

import collections
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts.cards import CohortError

#: Seeds outside this box (LPS mm) lie in no body: a field of view is at most 0.5 m wide, and the
#: origin of z is arbitrary but within the travel of a table.
COORD_LIMITS_MM = {"coord_x": 500.0, "coord_y": 500.0, "coord_z": 3000.0}

#: Columns of every cohort table, in this order.
STANDARD_COLUMNS = (
    *("lesion_id", "patient_id", "scan_id", "image_path"),
    *COORD_LIMITS_MM,
    *("label", "time_days", "event"),
)

#: Faults of one column, and of one table, that a message names; the rest is counted.
_SHOWN_OF_COLUMN, _SHOWN = 3, 20


class Rule(NamedTuple):
    """What may stand in a column: numbers if `range` or `codes` is given, else text.

    Attributes
    ----------
    range : (float, float), optional
        Least and greatest number.
    codes : sequence of float
        The numbers that may stand there.
    values : sequence of str
        The texts that may stand there.
    pattern : str
        Regular expression of the whole text. A group in it is what is kept of the cell.
    unique, missing : bool
        Whether every cell differs from the others, and whether cells may be empty.
    """

    range: Sequence[float] | None = None
    codes: Sequence[float] = ()
    values: Sequence[str] = ()
    pattern: str = ""
    unique: bool = False
    missing: bool = False


def coordinate(name: str, *, missing: bool = False) -> Rule:
    """Return the rule for ``coord_x``, ``coord_y`` or ``coord_z``, in LPS mm."""
    return Rule(range=(-COORD_LIMITS_MM[name], COORD_LIMITS_MM[name]), missing=missing)


#: Rules of the columns that have a meaning in every table.
RULES = {
    **dict.fromkeys(("lesion_id", "patient_id", "scan_id", "image_path"), Rule()),
    "lesion_id": Rule(unique=True),
    **{name: coordinate(name) for name in COORD_LIMITS_MM},
    "label": Rule(codes=(0, 1), missing=True),
    "time_days": Rule(range=(0, 40000), missing=True),
    "event": Rule(codes=(0, 1), missing=True),
    "label_reference": Rule(codes=(0, 1), missing=True),
}


def read_csv(path: Path) -> pd.DataFrame:
    """Read a CSV file as text.

    Parameters
    ----------
    path : Path

    Returns
    -------
    DataFrame of object
        Indexed by row number. Blank cells are None, and lines without any cell are passed over.

    Raises
    ------
    CohortError
        If the file is absent, empty or no CSV table, rows have different lengths, or a column
        stands there twice.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = next(reader, [])
            rows = {reader.line_num: cells for cells in reader if cells}
    except FileNotFoundError:
        beside = ", ".join(sorted(p.name for p in path.parent.glob("*"))[:8])
        raise CohortError(
            f"{path}: no such file; {path.parent} is "
            f"{f'a folder with {beside}' if beside else 'empty, or no folder'}"
        ) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CohortError(
            f"{path}: not a CSV table in UTF-8 ({error}); save it as CSV UTF-8"
        ) from None
    if not header or not rows:
        raise CohortError(f"{path}: {'no rows below the header' if header else 'the file is empty'}")
    if re.match("(?i)sep=", header[0]):
        raise CohortError(f"{path}: row 1: {','.join(header)!r} is no header; remove that line")
    if len(header) == 1 and (mark := re.search(r"[;\t|]", header[0])):
        raise CohortError(
            f"{path}: row 1: cells are parted by {mark[0]!r}; save the table as CSV with commas "
            "between cells and points in numbers"
        )
    twice = [name for name, n in collections.Counter(header).items() if n > 1]
    if twice:
        raise CohortError(f"{path}: row 1: the column {_short(twice[0])} stands there twice")
    for number, cells in rows.items():
        if len(cells) != len(header):
            raise CohortError(
                f"{path}: row {number}: {len(cells)} cells, but the header has {len(header)}"
            )
    cells = [[cell if cell.strip() else None for cell in row] for row in rows.values()]
    return pd.DataFrame(cells, index=list(rows), columns=header, dtype=object)


def check(
    frame: pd.DataFrame, rules: Mapping[str, Rule], called: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Return the columns that have rules, converted, and what is wrong with them.

    Parameters
    ----------
    frame : DataFrame
        The index is how rows are called in messages.
    rules : mapping of str to Rule
    called : mapping of str to str, optional
        How columns are called in messages, where the file has other names.
    """
    columns, faults = {}, []
    for name, rule in rules.items():
        columns[name], wrong = _checked(frame[name], rule)
        shown = (called or {}).get(name, name)
        for row, said in wrong.head(_SHOWN_OF_COLUMN).items():
            value = "" if said.startswith("the cell") else f"{_short(frame[name][row])} "
            faults.append(f"{place(row)}, column {shown!r}: {value}{said}")
        if len(wrong) > _SHOWN_OF_COLUMN:
            faults[-1] += f" (and {len(wrong) - _SHOWN_OF_COLUMN} more in this column)"
    return pd.DataFrame(columns, index=frame.index), faults


def _checked(column: pd.Series, rule: Rule) -> tuple[pd.Series, pd.Series]:
    """Return a column as its rule wants it, and what is wrong, by row."""
    column, there = column.astype(object), column.notna()
    wrong = pd.Series("", index=column.index)

    def mark(rows: pd.Series, said: str) -> None:
        wrong[rows & (wrong == "")] = said

    if not rule.missing:
        mark(~there, "the cell is empty")
    if rule.range or rule.codes:
        # A flag in a column of measurements, or a complex number, converts without a word.
        no_number = complex if rule.codes else complex | bool | np.bool_
        plain = column.mask(column.map(lambda cell: isinstance(cell, no_number)))
        # `to_numeric` knows what a number is; `astype` reads its digits to the last one.
        result = plain.where(pd.to_numeric(plain, errors="coerce").notna()).astype(float)
        mark(there & ~np.isfinite(result), "is not a number (points, no commas, no units)")
        if rule.range:
            low, high = rule.range
            mark(there & ~result.between(low, high), f"is not between {low:g} and {high:g}")
        else:
            known = ", ".join(f"{code:g}" for code in rule.codes)
            mark(there & ~result.isin(list(rule.codes)), f"is none of {known}")
    else:
        result, text = column, column.map(lambda cell: isinstance(cell, str))
        mark(there & ~text, "is not text")
        if rule.values:
            mark(there & ~column.isin(list(rule.values)), f"is none of {', '.join(rule.values)}")
        if rule.pattern:
            match = column[text].map(re.compile(rule.pattern).fullmatch)
            mark(there & ~column.index.isin(match.index[match.notna()]), "is not as it should be")
            kept = match.dropna().map(lambda found: found[min(found.re.groups, 1)])
            result = kept.reindex(column.index)
    if rule.unique:
        mark(there & column.duplicated(keep=False), "stands in more than one row")
    return result, wrong[wrong != ""]


def place(row) -> str:
    """Return how a row is called in messages: by its number, or as its index says."""
    return row if isinstance(row, str) else f"row {row}"


def refuse(faults: Sequence[str], where: str = "") -> None:
    """Raise a :class:`CohortError` that names the faults, if there are any."""
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise CohortError(f"{where}{': ' if where else ''}{'; '.join(faults[:_SHOWN])}{more}")


def disagreements(frame: pd.DataFrame) -> list[tuple[object, str, str]]:
    """Return where rows contradict each other: row, column and what is wrong.

    A time needs an event and an event a time, and a scan belongs to one patient.
    """
    found = []
    follow_up = frame.reindex(columns=["time_days", "event"]).isna()
    for row in frame.index[follow_up["time_days"] != follow_up["event"]]:
        name = "event" if follow_up.loc[row, "event"] else "time_days"
        found.append((row, name, "the cell is empty; a time needs an event (0 or 1), and an event a time"))
    first = frame.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    theirs = frame["scan_id"].map(first)
    for row in frame.index[theirs.notna() & (frame["patient_id"] != theirs)]:
        found.append(
            (
                row,
                "patient_id",
                f"the scan {frame.loc[row, 'scan_id']!r} belongs to several patients, "
                f"{theirs[row]!r} and {frame.loc[row, 'patient_id']!r}",
            )
        )
    return found


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
        round, or a scan belongs to two patients: all faults at once.
    """
    twice = table.columns[table.columns.duplicated()]
    faults = [f"no column {name!r}" for name in STANDARD_COLUMNS if name not in table]
    faults += [f"the column {name!r} stands there twice" for name in twice]
    refuse(faults or ([] if len(table) else ["no rows"]), where)
    plain = table.reset_index(drop=True)
    checked, faults = check(plain, {name: RULES[name] for name in RULES if name in plain})
    refuse(faults, where)
    faults = [f"row {row}, column {name!r}: {said}" for row, name, said in disagreements(checked)]
    refuse(faults, where)
    if "label_reference" not in checked:
        checked["label_reference"] = checked["label"]
    integers = dict.fromkeys(("label", "event", "label_reference"), "Int64")
    rest = plain[[name for name in plain if name not in checked]]
    result = pd.concat([checked.astype(integers), rest], axis=1)
    result.attrs = dict(table.attrs)
    return result


def _short(value) -> str:
    """Return how a value is shown in a message: at most 80 characters."""
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
