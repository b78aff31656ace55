"""Tables as text, and what may stand in their columns; faults are named by file, row and column.

Rows are numbered as a spreadsheet shows them: the header is row 1.
"""

import collections
import csv
import re
from collections.abc import Iterable, Mapping, Sequence
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

#: Row, column, and what is wrong.
Fault = tuple[object, str, str]

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
            rows = {number: cells for number, cells in enumerate(reader, 2) if cells}
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
        said = "no rows below the header" if header else "the file is empty"
        raise CohortError(f"{path}: {said}")
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


def check(frame: pd.DataFrame, rules: Mapping[str, Rule]) -> tuple[pd.DataFrame, list[Fault]]:
    """Return the columns that have rules, converted, and what is wrong with them."""
    columns, faults = {}, []
    for name, rule in rules.items():
        columns[name], wrong = _checked(frame[name], rule)
        for row, said in wrong.items():
            value = "" if said.startswith("the cell") else f"{_short(frame[name][row])} "
            faults.append((row, name, value + said))
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


def refuse(
    faults: Iterable[Fault | str], where: str = "", called: Mapping[str, str] | None = None
) -> None:
    """Raise a :class:`CohortError` that names the faults, if there are any.

    Parameters
    ----------
    faults : iterable of (row, column, what is wrong) or str
        A row is a number, or text that says file and row. Of one cell the first fault is named.
    where : str
        The file.
    called : mapping of str to str, optional
        How columns are called in the file, where it has other names.
    """
    cells = {fault if isinstance(fault, str) else fault[:2]: fault for fault in reversed([*faults])}
    shown, of_column = [], collections.Counter()
    for fault in reversed(cells.values()):
        if not isinstance(fault, str):
            row, column, said = fault
            of_column[column] += 1
            if of_column[column] > _SHOWN_OF_COLUMN:
                continue
            row = row if isinstance(row, str) else f"row {row}"
            fault = f"{row}, column {(called or {}).get(column, column)!r}: {said}"
        shown.append(fault)
    if shown:
        more = len(cells) - len(shown[:_SHOWN])
        text = "; ".join(shown[:_SHOWN]) + (f"; and {more} more faults" if more else "")
        raise CohortError(f"{where}: {text}" if where else text)


def disagreements(frame: pd.DataFrame) -> list[Fault]:
    """Return where rows contradict each other.

    A time needs an event and an event a time, and a scan belongs to one patient.
    """
    found = []
    follow_up = frame.reindex(columns=["time_days", "event"]).isna()
    for row in frame.index[follow_up["time_days"] != follow_up["event"]]:
        name = "event" if follow_up.loc[row, "event"] else "time_days"
        found.append((row, name, "the cell is empty; times and events (0 or 1) need each other"))
    first = frame.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    theirs = frame["scan_id"].map(first)
    for row in frame.index[theirs.notna() & (frame["patient_id"] != theirs)]:
        scan, patient = frame.loc[row, ["scan_id", "patient_id"]]
        said = f"the scan {scan!r} belongs to several patients, {theirs[row]!r} and {patient!r}"
        found.append((row, "patient_id", said))
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
    refuse(faults or disagreements(checked), where)
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
