"""A cohort of your own: a CSV file, a folder of scans and a description of a dozen lines."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tumorbench_utils import settings
from tumorbench_utils.cohorts.cards import CohortCard, CohortError
from tumorbench_utils.cohorts.masks import seeds_from_mask
from tumorbench_utils.cohorts.registry import Reader
from tumorbench_utils.cohorts.tables import (
    COORD_LIMITS_MM,
    STANDARD_COLUMNS,
    check,
    check_standard,
    code,
    coordinate,
    number,
    read_cells,
    text,
)
from tumorbench_utils.files import atomic_path, inside

_COORDINATES = tuple(COORD_LIMITS_MM)

#: Columns that a table must have; ``scan_id`` is the path of the image where there is none.
NEEDED = ("lesion_id", "patient_id", "image_path")

_RULES = {
    "lesion_id": text(unique=True),
    "patient_id": text(),
    "scan_id": text(),
    "image_path": text(),
    "mask_path": text(missing=True),
    "mask_label": number(1, 65535, missing=True),
    **dict.fromkeys(_COORDINATES),
    "label": code(0, 1, missing=True),
    "time_days": number(0, 40000, missing=True),
    "event": code(0, 1, missing=True),
    "size_mm": number(0, 2000, missing=True),
    "age": number(0, 120, missing=True),
}

#: Fields of a card that a description may set; the others are facts about released tables.
_CARD = (
    "key",
    "title",
    "organ",
    "endpoint",
    "label_rule",
    "positive",
    "source",
    "doi",
    "licence",
    "access",
    "image_format",
    "covariates",
    "size_column",
    "size_direction",
    "clinical_column",
    "clinical_direction",
    "citation",
)
_TABLE = ("table", "images", "columns", "values")
_KINDS = {
    **dict.fromkeys(("columns", "values", "covariates"), (dict, "a list of `name: value`")),
    **dict.fromkeys(("size_direction", "clinical_direction"), (int, "1 or -1")),
}


def describe(path: str | os.PathLike) -> tuple[CohortCard, Reader]:
    """Read the description of a cohort; what comes back goes into :func:`register`.

    Parameters
    ----------
    path : path-like
        A YAML file. ``key`` (the name) and ``table`` (the CSV file) are needed. ``images`` is the
        folder of the scans, else that of the table; ``columns`` and ``values`` are as for
        :func:`read_own_table`; the rest are fields of :class:`CohortCard`. Relative paths start at
        the folder of the description.

    Returns
    -------
    card : CohortCard
    reader : callable
        Reads and checks the table anew at every call.

    Raises
    ------
    CohortError
        If the file is absent, is no YAML, or a field is unknown, missing or of the wrong kind.

    Examples
    --------
    >>> from tumorbench_utils import cohorts
    >>> cohorts.register(*cohorts.describe("my_cohort.yml"))        # doctest: +SKIP
    >>> cohorts.load_cohort("my_cohort").table                      # doctest: +SKIP
    """
    path = Path(path)
    fields = _fields(path)
    folder = path.resolve().parent
    table = folder / fields["table"]
    images = folder / fields.get("images", table.parent)
    columns, values = fields.get("columns"), fields.get("values")
    card = CohortCard(**{"title": fields["key"], **{k: fields[k] for k in _CARD if k in fields}})

    def reader(_folder: Path | None = None) -> pd.DataFrame:
        return read_own_table(table, images=images, columns=columns, values=values)

    return card, reader


def _fields(path: Path) -> dict:
    """Return the fields of a description, each of the right kind."""
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CohortError(f"{path}: no such file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise CohortError(f"{path}: not a YAML file ({said})") from None
    if not isinstance(fields, dict):
        raise CohortError(f"{path}: a description is a list of `field: value`, not {fields!r:.60}")
    for name, value in fields.items():
        if name not in (*_CARD, *_TABLE):
            raise CohortError(f"{path}: {settings.unknown('field', name, (*_TABLE, *_CARD))}")
        kind, said = _KINDS.get(name, (str, "text"))
        wrong = kind is int and value not in (1, -1)
        if not isinstance(value, kind) or isinstance(value, bool) or wrong:
            raise CohortError(f"{path}: {name} is {said}, not {value!r:.60}")
    columns, values = fields.get("columns", {}), fields.get("values", {})
    for name, mapping in values.items():
        if not isinstance(mapping, dict):
            raise CohortError(f"{path}: values: {name} is a list of `cell: value`")
    words = [*columns, *columns.values(), *values, *(key for one in values.values() for key in one)]
    if any(isinstance(word, bool) or word is None for word in words):
        raise CohortError(f"{path}: put the words yes, no, on, off, true and false in quotes")
    absent = [name for name in ("key", "table") if not fields.get(name)]
    if absent:
        raise CohortError(f"{path}: the field {absent[0]!r} is missing")
    if not fields["key"].isidentifier():
        raise CohortError(f"{path}: key is a plain name such as my_cohort, not {fields['key']!r}")
    return fields


def read_own_table(
    path: str | os.PathLike,
    *,
    images: str | os.PathLike | None = None,
    columns: Mapping[str, str] | None = None,
    values: Mapping[str, Mapping] | None = None,
) -> pd.DataFrame:
    """Read the table of a cohort of your own.

    Parameters
    ----------
    path : path-like
        CSV file, one row per lesion. Needed: ``lesion_id``, ``patient_id``, ``image_path`` (file
        or folder of one DICOM series) and a seed: ``coord_x, coord_y, coord_z`` (LPS mm) or
        ``mask_path`` (as for :func:`seeds_from_mask`; with several labels in it ``mask_label`` says
        which). Where a row has both, the coordinates count. Optional: ``scan_id``, ``label`` (0 or
        1), ``time_days`` with ``event`` (1 = dead), ``size_mm``, ``age`` and any others.
    images : path-like, optional
        Folder that the paths in the table start at and do not leave; if None, that of the table.
    columns : mapping of str to str, optional
        ``{name here: name in the file}`` for columns that have other names there.
    values : mapping of str to mapping, optional
        ``{name here: {cell: value}}`` for cells that are written differently, for example
        ``{"label": {"benign": 0, "malignant": 1}}``; None for cells that mean missing.

    Returns
    -------
    DataFrame
        The standard columns and all others of the file; ``image_path`` is the full path. A column
        that holds numbers only is numeric.

    Raises
    ------
    CohortError
        Naming file, row (the header is row 1) and column as they are in the file.
    """
    path = Path(path)
    header, rows = read_cells(path.parent, path.name)
    if not rows:
        raise CohortError(f"{path}: no rows below the header")
    called = _called(path, header, columns or {})
    names = {name: theirs for name, theirs in called.items() if name in _RULES}
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=header, dtype=object)
    frame = pd.DataFrame({name: frame[theirs] for name, theirs in called.items()}, dtype=object)
    frame.attrs.update(file=str(path), rows=list(frame.index), called=names)
    for name, mapping in (values or {}).items():
        if name not in frame:
            raise CohortError(f"{path}: `values` names the column {name!r}, which is not there")
        known = {str(cell): value for cell, value in mapping.items()}
        frame[name] = [known.get(v, v) for v in frame[name]]
        frame[name] = frame[name].where(frame[name].notna(), None)
    if "scan_id" not in frame:
        frame["scan_id"] = frame["image_path"]
    rules = {name: rule or coordinate(name) for name, rule in _RULES.items() if name in frame}
    for name in _COORDINATES:
        if name in rules:
            rules[name] = number(-COORD_LIMITS_MM[name], COORD_LIMITS_MM[name], missing=True)
    checked = check(frame[list(rules)], rules, str(path), names)
    _check_names(path, checked, names)
    frame[list(rules)] = checked
    for name in [n for n in frame if n not in rules]:
        frame[name] = _numbers_if_all(frame[name])
    folder = Path(images) if images is not None else path.parent
    frame["image_path"] = _full_paths(path, frame["image_path"], folder, names)
    if "mask_path" in frame:
        frame["mask_path"] = _full_paths(path, frame["mask_path"], folder, names)
    _add_seeds(path, frame, names)
    for name in STANDARD_COLUMNS:
        if name not in frame:
            frame[name] = np.nan
    return check_standard(frame.infer_objects(), str(path))


def _called(path: Path, header: list[str], columns: Mapping[str, str]) -> dict[str, str]:
    """Return {name here: name in the file} for all columns of the file."""
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise CohortError(f"{path}: row 1: the column {twice[0]!r} stands there twice")
    called = {str(name): str(theirs) for name, theirs in columns.items()}
    for name, theirs in called.items():
        if theirs not in header:
            raise CohortError(f"{path}: {name}: {settings.unknown('column', theirs, header)}")
        if name in header and name != theirs:
            raise CohortError(
                f"{path}: row 1: there is a column {name!r}, but `columns` takes {name} from "
                f"{theirs!r}; rename or remove one of the two"
            )
    called |= {name: name for name in header if name and name not in called.values()}
    absent = [name for name in NEEDED if name not in called]
    if not {"mask_path", *_COORDINATES} & set(called):
        absent.append("coord_x, coord_y, coord_z or mask_path")
    if absent:
        raise CohortError(
            f"{path}: row 1: no column {'; no column '.join(absent)}; the file has "
            f"{', '.join(map(repr, header[:12]))}{', ...' if len(header) > 12 else ''}. If they "
            "have other names there, say so with `columns`, here or in a description (.yml)"
        )
    return called


def _check_names(path: Path, frame: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Refuse names with blanks around them, half a follow-up, and scans of two patients."""

    def where(row: int, name: str) -> str:
        return f"{path}: row {row}, column {names.get(name, name)!r}"

    for name in ("lesion_id", "patient_id", "scan_id"):
        bad = frame[name] != frame[name].str.strip()
        if bad.any():
            row = bad.idxmax()
            raise CohortError(f"{where(row, name)}: {frame.loc[row, name]!r} has blanks around it")
    if {"time_days", "event"} & set(frame):
        empty = frame.reindex(columns=["time_days", "event"]).isna()
        half = empty["time_days"] != empty["event"]
        if half.any():
            row = half.idxmax()
            name = "event" if empty.loc[row, "event"] else "time_days"
            raise CohortError(
                f"{where(row, name)}: the cell is empty; a time needs an event (0 or 1), and an "
                "event a time"
            )
    first = frame.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    apart = frame["patient_id"] != frame["scan_id"].map(first)
    if apart.any():
        row = apart.idxmax()
        scan = frame.loc[row, "scan_id"]
        raise CohortError(
            f"{where(row, 'patient_id')}: the scan {scan!r} belongs to {first[scan]!r} in an "
            f"earlier row and to {frame.loc[row, 'patient_id']!r} here"
        )


def _numbers_if_all(column: pd.Series) -> pd.Series:
    """Return a column as numbers if every cell that is not empty is one."""
    numbers = pd.to_numeric(column, errors="coerce")
    whole = numbers.notna() | column.isna()
    return numbers.astype(float) if whole.all() and column.notna().any() else column


def _full_paths(path: Path, paths: pd.Series, folder: Path, names: Mapping[str, str]) -> list:
    """Return paths inside the folder, each of which must be there; missing ones stay so."""
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; it should hold the scans of {path}")
    found = []
    for row, relative in paths.items():
        if pd.isna(relative):
            found.append(None)
            continue
        where = f"{path}: row {row}, column {names.get(paths.name, paths.name)!r}"
        try:
            target = inside(folder, relative)
        except ValueError as error:
            raise CohortError(f"{where}: {error}") from None
        if not target.exists():
            slash = "; use / between folders" if "\\" in relative else ""
            raise CohortError(f"{where}: there is no {relative!r} in {folder}{slash}")
        found.append(str(target))
    return found


def _add_seeds(path: Path, frame: pd.DataFrame, names: Mapping[str, str]) -> None:
    """Fill in the coordinates of rows that have a mask instead."""
    for name in _COORDINATES:
        if name not in frame:
            frame[name] = np.nan
    seeds = frame[list(_COORDINATES)].astype(float)
    there = seeds.notna()
    for row in frame.index[~there.all(axis=1)]:
        if there.loc[row].any():
            name = there.loc[row].idxmin()
            raise CohortError(
                f"{path}: row {row}, column {names.get(name, name)!r}: the cell is empty; a seed "
                "has three coordinates"
            )
        mask = frame.loc[row, "mask_path"] if "mask_path" in frame else None
        if mask is None:
            raise CohortError(
                f"{path}: row {row}, column {names.get('coord_x', 'coord_x')!r}: neither "
                "coordinates nor a mask; a lesion needs a seed"
            )
        where = f"{path}: row {row}, column {names.get('mask_path', 'mask_path')!r}"
        label = frame.loc[row, "mask_label"] if "mask_label" in frame else np.nan
        seeds.loc[row] = _seed(mask, frame.loc[row, "image_path"], label, where)
    frame[list(_COORDINATES)] = seeds


def _seed(mask: str, image: str, label: float, where: str) -> tuple[float, float, float]:
    """Return the seed of one label of a mask, kept in the cache until mask or series change."""
    series = image if os.path.isdir(image) else None
    parts = [Path(mask), *([] if series is None else sorted(Path(series).iterdir()))]
    state = [(str(part), part.stat().st_size, part.stat().st_mtime_ns) for part in parts]
    digest = hashlib.sha256(repr(state).encode()).hexdigest()[:24]
    kept = settings.cache_dir() / "seeds" / f"{digest}.json"
    if not kept.exists():
        try:
            found = seeds_from_mask(mask, series=series)
        except CohortError as error:
            raise CohortError(f"{where}: {error}") from None
        with atomic_path(kept) as part:
            part.write_text(json.dumps(found), encoding="utf-8")
    seeds = {int(key): tuple(seed) for key, seed in json.loads(kept.read_text()).items()}
    if np.isnan(label):
        if len(seeds) > 1:
            raise CohortError(
                f"{where}: {Path(mask).name} holds the labels {', '.join(map(str, seeds))}; say in "
                "a column mask_label which one is meant"
            )
        return next(iter(seeds.values()))
    if label not in seeds:
        raise CohortError(
            f"{where}: {Path(mask).name} has no label {label:g}; it has "
            f"{', '.join(map(str, seeds))}"
        )
    return seeds[int(label)]
