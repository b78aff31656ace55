"""A cohort of your own: a CSV file, a folder of scans and a description of a dozen lines."""

import dataclasses
import itertools
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from tumorbench_utils import digests, files, patches, settings
from tumorbench_utils.cohorts import masks, tables
from tumorbench_utils.cohorts.cards import CohortCard, CohortError
from tumorbench_utils.cohorts.registry import Reader
from tumorbench_utils.cohorts.tables import COORD_LIMITS_MM, Fault, Rule, refuse
from tumorbench_utils.patches.extract import open_volume

_SEED = list(COORD_LIMITS_MM)

_RULES = tables.RULES | {
    **{name: tables.coordinate(name, missing=True) for name in _SEED},
    "mask_path": Rule(missing=True),
    "mask_label": Rule(range=(1, 65535), missing=True),
    "size_mm": Rule(range=(0, 2000), missing=True),
    "age": Rule(range=(0, 120), missing=True),
}

#: Columns that a table must have; ``scan_id`` is the path of the image where there is none.
_NEEDED = ("lesion_id", "patient_id", "image_path")

#: Fields of the card that a description may set, and what they hold; the others are facts about
#: released tables.
_CARD = {
    fact.name: int if fact.type is int else dict if fact.name == "covariates" else str
    for fact in dataclasses.fields(CohortCard)
    if fact.name not in ("exclusions", "expected", "known_problems")
}
_FIELDS = {"table": str, "images": str, "columns": dict, "values": dict} | _CARD
_SAID = {str: "text", dict: "a list of `name: value`", int: "1 or -1"}


class _Loader(yaml.SafeLoader):
    """Refuses what YAML takes without a word: names that stand twice, and references (bombs)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (* and &) are not allowed")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        names = [str(key.value) for key, _ in node.value]
        if len(set(names)) < len(names):
            twice = next(name for i, name in enumerate(names) if name in names[:i])
            raise yaml.YAMLError(f"{twice!r:.80} stands there twice")
        return super().construct_mapping(node, deep)


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
        If the file is absent, is no YAML, or fields are unknown, missing or of the wrong kind.

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
    options = {name: fields.get(name) for name in ("columns", "values")}
    images = folder / fields.get("images", table.parent)
    card = CohortCard(**{"title": fields["key"], **{k: fields[k] for k in _CARD if k in fields}})
    return card, lambda _folder=None: read_own_table(table, images=images, **options)


def _fields(path: Path) -> dict:
    """Return the fields of a description, each of the right kind."""
    try:
        fields = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise CohortError(f"{path}: no such file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        said = " ".join(str(error).split())
        raise CohortError(f"{path}: not a YAML file that can be taken ({said})") from None
    if not isinstance(fields, dict):
        raise CohortError(f"{path}: a description is a list of `field: value`")
    faults = [f"the field {name!r} is missing" for name in ("key", "table") if not fields.get(name)]
    for name, value in fields.items():
        kind = _FIELDS.get(name)
        if kind is None:
            faults.append(settings.unknown("field", name, _FIELDS))
        elif not isinstance(value, kind) or (kind is int and repr(value) not in ("1", "-1")):
            faults.append(f"{name} is {_SAID[kind]}, not {value!r:.60}")
    refuse(faults, str(path))
    if not fields["key"].isidentifier():
        faults.append(f"key is a plain name such as my_cohort, not {fields['key']!r:.60}")
    columns, values = fields.get("columns", {}), fields.get("values", {})
    loose = [name for name, cells in values.items() if not isinstance(cells, dict)]
    faults += [f"values: {name} is a list of `cell: value`" for name in loose]
    words = [*columns, *columns.values(), *values]
    words += [cell for name in values if name not in loose for cell in values[name]]
    if any(isinstance(word, bool) or word is None for word in words):
        faults.append("put the words yes, no, on, off, true and false in quotes")
    refuse(faults, str(path))
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
        ``{"label": {"benign": 0, "malignant": 1}}``; None for cells that mean missing. Numbers
        are compared as numbers: 1 is also 1.0. Every cell must be named, unless only missing cells
        are, or only words in a column of numbers.

    Returns
    -------
    DataFrame
        The standard columns and all others of the file; ``image_path`` is the full path. A column
        that holds numbers only is numeric.

    Raises
    ------
    CohortError
        Naming file, row (the header is row 1) and column as they are in the file; all faults of
        the header at once, then all faults of the rows.
    """
    path = Path(path)
    frame = tables.read_csv(path)
    called = _called(path, frame, columns or {}, values or {})
    frame = frame[list(called.values())].set_axis(list(called), axis=1)
    folder = Path(images) if images is not None else path.parent
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; it should hold the scans of {path}")
    faults: list[Fault] = []
    for name, cells in (values or {}).items():
        frame[name] = _translated(frame[name], cells, faults)
    if "scan_id" not in frame:
        frame["scan_id"] = frame["image_path"]
    rules = {name: rule for name, rule in _RULES.items() if name in frame}
    table, wrong = tables.check(frame, rules)
    faults += wrong + _contradictions(table) + tables.disagreements(table)
    for name in table.columns.intersection(["image_path", "mask_path"]):
        table[name] = _full_paths(table[name], folder, faults)
    table = table.reindex(columns=[*table, *(n for n in tables.STANDARD_COLUMNS if n not in table)])
    _add_seeds(table, faults)
    others = _numeric(frame.drop(columns=list(rules)), faults)
    named = {name: called[name] for name in rules if name in called}
    refuse(faults, str(path), called)
    table = pd.concat([table, others], axis=1)
    table.attrs.update(file=str(path), rows=list(frame.index), called=named)
    return tables.check_standard(table.infer_objects(), str(path))


def _called(path: Path, frame: pd.DataFrame, columns: Mapping, values: Mapping) -> dict[str, str]:
    """Return {name here: name in the file} for all columns of the file."""
    header = list(frame)
    called = {str(name): str(theirs) for name, theirs in columns.items()}
    faults = []
    for name, theirs in called.items():
        if theirs not in header:
            faults.append(f"{name}: {settings.unknown('column', theirs, header[:30])}")
        if name in header and name != theirs:
            faults.append(
                f"row 1: there is a column {name!r}, but `columns` takes {name} from {theirs!r}; "
                "rename or remove one of the two"
            )
    taken = set(called.values())
    called |= {name: name for name in header if name and name not in taken}
    for name in header:
        if name in called and (meant := name.strip().lower()) in _RULES and meant not in called:
            faults.append(f"row 1: the column {name!r} should be called {meant!r}")
    seed = _SEED if set(_SEED) & set(called) else ["mask_path"]
    absent = [name for name in (*_NEEDED, *seed) if name not in called]
    if absent:
        said = ", ".join(absent).replace("mask_path", "coord_x, coord_y, coord_z or mask_path")
        faults.append(
            f"row 1: no column {said}; the file has {', '.join(map(repr, header[:12]))}. If they "
            "have other names there, say so with `columns`, here or in a description (.yml)"
        )
    strange = [name for name in values if name not in called]
    faults += [f"`values` names the column {name!r}, which is not there" for name in strange]
    refuse(faults, str(path))
    return called


def _plain(cell) -> str | float:
    """Return a cell as a number if it is one, so that 1, 1.0 and 01 are the same, else as text."""
    try:
        number = float(cell) if "_" not in str(cell) else np.nan
    except ValueError:
        number = np.nan
    return number if np.isfinite(number) else str(cell).strip()


def _translated(column: pd.Series, cells: Mapping, faults: list[Fault]) -> pd.Series:
    """Return a column with its cells translated; cells that are not named are faults."""
    known = {_plain(cell): value for cell, value in cells.items()}
    codes = [cell for cell, value in known.items() if value is not None]
    plain = column.map(_plain, na_action="ignore")
    named = plain.isin(list(known)) | plain.isna()
    # Words among measurements leave the numbers alone; a code that is not named is a riddle.
    numbers_pass = column.name not in ("label", "event") and all(isinstance(c, str) for c in codes)
    passed = plain.map(lambda cell: numbers_pass and isinstance(cell, float))
    if len(known) < len(cells):
        faults.append((column.index[0], column.name, "`values` names a cell twice"))
    said = f"is none of {', '.join(map(repr, cells))} in `values`"
    if codes:
        wrong = column[~named & ~passed]
        faults += [(row, column.name, f"{cell!r:.80} {said}") for row, cell in wrong.items()]
    elif unmet := [cell for cell in cells if _plain(cell) not in set(plain)]:
        said = f"`values` names {unmet[0]!r}, which stands in no cell"
        faults.append((column.index[0], column.name, said))
    result = column.where(~named, plain.map(known.get, na_action="ignore"))
    return result.astype(object).where(result.notna(), None)


def _contradictions(frame: pd.DataFrame) -> list[Fault]:
    """Return names with blanks around them, and patients whose rows contradict each other."""
    found = []
    for name in ("lesion_id", "patient_id", "scan_id"):
        bad = frame.loc[frame[name].notna() & (frame[name] != frame[name].str.strip()), name]
        found += [(row, name, f"{cell!r:.80} has blanks around it") for row, cell in bad.items()]
    for name, within in (("event", "patient_id"), ("time_days", "scan_id")):
        if name in frame:
            first = frame.groupby(within)[name].transform("first")
            for row in frame.index[frame[name].notna() & (frame[name] != first)]:
                said = f"{frame.loc[row, name]:g}, but {first[row]:g} in an earlier row of"
                found.append((row, name, f"{said} {frame.loc[row, within]!r:.80}"))
    return found


def _numeric(frame: pd.DataFrame, faults: list[Fault]) -> pd.DataFrame:
    """Return further columns, numeric if all their cells are numbers; decimal commas are faults."""
    columns = {}
    for name, column in frame.items():
        there = column.dropna()
        odd = there[pd.to_numeric(there, errors="coerce").isna()]
        if len(there) and odd.empty:
            column = column.astype(float)
        elif len(odd) and odd.astype(str).str.fullmatch(r"\s*[-+]?\d+,\d+\s*").all():
            said = "is not a number (points, no commas)"
            faults += [(row, name, f"{cell!r:.80} {said}") for row, cell in odd.items()]
        columns[name] = column
    return pd.DataFrame(columns, index=frame.index)


def _full_paths(paths: pd.Series, folder: Path, faults: list[Fault]) -> list[str | None]:
    """Return paths inside the folder, each of which must be there; missing ones stay so."""
    found = []
    for row, relative in paths.items():
        target, said = None, ""
        if pd.notna(relative):
            try:
                target = files.inside(folder, relative)
                if not target.exists():
                    slash = "; use / between folders" if "\\" in relative else ""
                    said = f"there is no {relative!r:.200} in {folder}{slash}"
            except (ValueError, OSError) as error:
                said = f"{error!s:.300}; `images` names the folder that holds the scans"
        if said:
            faults.append((row, paths.name, said))
        found.append(str(target) if target and not said else None)
    return found


# ------------------------------------------------------------------------------------------- seeds


def _add_seeds(table: pd.DataFrame, faults: list[Fault]) -> None:
    """Fill in the coordinates of rows that have a mask instead."""
    table[_SEED] = table[_SEED].astype(float)
    rows = table.reindex(columns=["image_path", "mask_path", "mask_label"]).to_dict("index")
    for row, empty in table[_SEED].isna().iterrows():
        image, mask, label = rows[row].values()
        if empty.all() and pd.notna(mask):
            try:
                table.loc[row, _SEED] = _seed(mask, image, label)
            except CohortError as error:
                faults.append((row, "mask_path", str(error)))
        elif empty.all():
            column = "mask_path" if "mask_path" in table else "coord_x"
            said = "neither coordinates nor a mask; a lesion needs a seed"
            faults.append((row, column, said))
        elif empty.any():
            said = "the cell is empty; a seed has three coordinates"
            faults.append((row, empty.idxmax(), said))


def _seed(mask: str, image: str | None, label: float) -> tuple[float, float, float]:
    """Return the seed of one label of a mask."""
    seeds = _all_seeds(mask, image)
    said = f"{Path(mask).name} holds the labels {', '.join(map(str, seeds))}"
    if pd.isna(label) and len(seeds) > 1:
        raise CohortError(f"{said}; say in a column mask_label which one is meant")
    if pd.notna(label) and label not in seeds:
        raise CohortError(f"{said}, and no label {label:g}")
    return next(iter(seeds.values())) if pd.isna(label) else seeds[int(label)]


def _all_seeds(mask: str, image: str | None) -> dict[int, tuple]:
    """Return the seeds of a mask, kept in the cache until its bytes or the series change."""
    series = image if image and os.path.isdir(image) else None
    try:
        read = [digests.of_file(file) for file in patches.sources(mask)]
        slices = [(file.name, file.stat()) for file in patches.sources(series or mask)]
    except patches.PatchError as error:
        raise CohortError(str(error)) from None
    read += [(name, status.st_size, status.st_mtime_ns) for name, status in slices]
    key = digests.of(read, Path(mask).name, digests.of_code(masks.__name__))
    _check_place(mask, image)
    kept = files.made(
        settings.cache_dir() / "seeds" / f"{key[:24]}.json",
        lambda part: part.write_text(json.dumps(masks.seeds_from_mask(mask, series=series))),
    )
    return {int(name): tuple(seed) for name, seed in json.loads(kept.read_text()).items()}


def _check_place(mask: str, image: str | None) -> None:
    """Refuse a mask of as many voxels as its scan that fills another place: a lost orientation."""
    try:
        volumes = [open_volume(path) for path in (mask, image or mask)]
    except patches.PatchError:
        return  # DICOM objects have no grid of their own; what is wrong with scans is said later
    boxes = []
    for volume in volumes:
        faces = itertools.product(*((-0.5, n - 0.5) for n in volume.shape))
        corners = np.array(list(faces)) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
        boxes.append(np.r_[corners.min(axis=0), corners.max(axis=0)].round(1).tolist())
    sizes = [sorted(volume.shape) for volume in volumes]
    if sizes[0] == sizes[1] and not np.allclose(*boxes, rtol=0, atol=0.5):
        raise CohortError(
            f"{Path(mask).name} has as many voxels as {Path(image).name}, but fills {boxes[0]} "
            f"where the scan fills {boxes[1]} (x, y, z from and to, LPS mm): was it saved without "
            "its orientation?"
        )
