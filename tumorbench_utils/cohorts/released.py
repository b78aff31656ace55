"""The released tables: found, read by their recipe in ``data/cohorts.yml``, and counted.

The tables are those of the published benchmark (AIM-Harvard/TumorImagingBench, ``data/eval``).
Their paths point to the authors' disks; of each only the part that names the scan is kept, and
checked against the row. The stored train, validation and test parts are kept in ``split`` although
the published protocol ignores them.

A recipe says for every column which column of the file it is made of and what may stand there
(:class:`~tumorbench_utils.cohorts.tables.Rule`), what is derived, what is refused and what is
listed as wrong or odd. Conditions are those of ``DataFrame.eval``.
"""

import csv
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils import settings
from tumorbench_utils.cohorts import tables
from tumorbench_utils.cohorts.cards import CohortCard, CohortError
from tumorbench_utils.cohorts.registry import card, is_own, read_own
from tumorbench_utils.cohorts.tables import COORD_LIMITS_MM, Fault, Rule, refuse
from tumorbench_utils.files import inside

#: The seed, as all released tables call it.
_SEED = {
    name: {"from": f"coord{name[-1].upper()}", "range": (-limit, limit)}
    for name, limit in COORD_LIMITS_MM.items()
}


def recipe(name: str) -> dict:
    """Return how the released table of a cohort is read: ``table`` in ``data/cohorts.yml``."""
    return settings.book_data("cohorts")[name]["table"]


def released_files(name: str) -> list[str]:
    """Return the files of a cohort in the folder of the released tables."""
    return [*recipe(name)["files"].values(), *recipe(name).get("parts", {}).values()]


def read_released_table(name: str, folder: str | os.PathLike) -> pd.DataFrame:
    """Read and check the released table of a cohort.

    Parameters
    ----------
    name : str
        Key in :data:`tumorbench_utils.cohorts.COHORTS`.
    folder : path-like
        Folder with the released tables, laid out as ``data/eval`` of the published repository.

    Returns
    -------
    DataFrame
        One row per lesion, sorted by ``lesion_id`` (RIDER: test before retest), with the standard
        columns (see :class:`~tumorbench_utils.cohorts.Cohort`), the covariates of the card and

        - ``image_path``: path of the scan relative to the folder of the cohort's images;
        - ``label``: by the rule of the card; ``label_reference``: as published;
        - ``split``: the stored part (train, val, test or none);
        - ``used_in_reference``: whether the published benchmark used the row.

        ``attrs["excluded"]`` lists the rows left out (``lesion_id``, ``reason``);
        ``attrs["anomalies"]`` lists values that are known to be wrong or odd (``lesion_id``,
        ``column``, ``value``, ``note``). A value outside its scale is missing in the table.

    Raises
    ------
    KeyError
        If the cohort is not known.
    CohortError
        If a file is absent or renamed, lacks a column, holds a value that breaks a rule or a path
        that names another scan, or the counts are not those of the card.
    """
    known, folder = card(name), Path(folder)
    if is_own(name):
        return read_own(name, folder)
    table, anomalies = _by_recipe(known, folder)
    where = str((folder / released_files(name)[0]).parent)
    table = tables.check_standard(table, where)
    _check_counts(known, table, where)
    table = table[~table["lesion_id"].isin(list(known.exclusions))].reset_index(drop=True)
    excluded = [{"lesion_id": k, "reason": reason} for k, reason in known.exclusions.items()]
    table.attrs.update(cohort=name, excluded=excluded, anomalies=anomalies)
    return table


def _by_recipe(known: CohortCard, folder: Path) -> tuple[pd.DataFrame, list[dict]]:
    """Return the table of all rows, nothing left out, and the list of values that are odd."""
    rules = recipe(known.key)
    table = _columns(folder, rules["files"], _SEED | rules["columns"])
    if "parts" in rules:
        table["split"] = _parts(folder, rules, table)
    label = pd.Series(pd.NA, index=table.index, dtype="Int64")
    for value in (0, 1):  # in this order: who reached two years and died later has label 1
        if "label" in rules:
            label[_rows(table, rules["label"][value])] = value
    defaults = {"label": label, "time_days": np.nan, "event": np.nan, "used_in_reference": True}
    table = table.assign(**{k: v for k, v in defaults.items() if k not in table})
    table = table.assign(**{"label_reference": table["label"]} | dict(table.items()))
    _derive(table, rules)
    faults: list[Fault] = []
    for rule in rules.get("refuse", []):
        wrong = table[_rows(table, rule["rows"])]
        for row, cells in zip(wrong.index, wrong.to_dict("records"), strict=True):
            faults.append((row, rule["column"], rule["because"].format(**cells)))
    refuse(faults)
    anomalies = []
    for rule in rules.get("notes", []):
        rows, column = _rows(table, rule["rows"]), rule["column"]
        values = table.loc[rows, rule.get("value", column)].tolist()
        anomalies += [
            {"lesion_id": lesion, "column": column, "value": value, "note": rule["note"]}
            for lesion, value in zip(table.loc[rows, "lesion_id"], values, strict=True)
        ]
        if rule.get("blank"):
            table[column] = table[column].mask(rows)
    covariates = [name for name in known.covariates if name in table]
    order = [*tables.STANDARD_COLUMNS, "label_reference", "split", "used_in_reference", *covariates]
    return table[order].sort_values(**rules.get("sort", {"by": "lesion_id"})), anomalies


def _columns(
    folder: Path, files: Mapping[str, str], columns: Mapping[str, Mapping]
) -> pd.DataFrame:
    """Return the wanted columns of CSV files, checked and converted; the part is ``split``."""
    wanted = {name: column.get("from", name) for name, column in columns.items()}
    frames = []
    for part, file in files.items():
        frame, wanted = (
            tables.read_csv(folder / file),
            {k: c.get("from", k) for k, c in columns.items()},
        )
        absent = sorted(set(wanted.values()) - set(frame))
        if absent:
            raise CohortError(
                f"{folder / file}: no column {', '.join(map(repr, absent))}; the file has "
                f"{', '.join(map(repr, frame.columns[:12]))}. Is it the table of another cohort?"
            )
        frame = pd.DataFrame({name: frame[theirs] for name, theirs in wanted.items()})
        frame.index = [f"{folder / file}: row {row}" for row in frame.index]
        frames.append(frame if "split" in wanted else frame.assign(split=part))
    raw = pd.concat(frames)
    rules = {
        name: Rule(**{key: column[key] for key in Rule._fields if key in column})
        for name, column in columns.items()
    }
    table, faults = tables.check(raw, rules)
    refuse(faults, called=wanted)
    for name, column in columns.items():
        values = table[name]
        if "map" in column:
            words = {k: np.nan if v is None else v for k, v in column["map"].items()}
            values = values.map(lambda cell, words=words: words.get(cell, cell))
        if "scale" in column:
            values = column["scale"] * values
        if "format" in column:
            values = values.map(column["format"].format)
        table[name] = values.astype(column.get("type", values.dtype))
    return table if "split" in table else table.assign(split=raw["split"])


def _rows(table: pd.DataFrame, condition: str) -> pd.Series:
    """Return where a condition holds; where it cannot be told, it does not."""
    return table.eval(condition, engine="python").fillna(False).astype(bool)


def _derive(table: pd.DataFrame, rules: Mapping) -> None:
    """Add the derived columns of a recipe: a condition, or one of the functions below."""
    for name, rule in rules.get("derive", {}).items():
        if isinstance(rule, str):
            table[name] = table.eval(rule, engine="python")
        else:
            ((function, columns),) = rule.items()
            table[name] = _FUNCTIONS[function](table[columns])


def _parts(folder: Path, rules: Mapping, table: pd.DataFrame) -> pd.Series:
    """Return the stored part of each row: the files of the parts must hold each row once."""
    lesion = rules["columns"]["lesion_id"]
    parts = _columns(folder, rules["parts"], _SEED | {"lesion_id": lesion})
    for frame, other, file in (
        (parts, table, rules["files"]["none"]),
        (table, parts, "any of its parts"),
    ):
        alone = frame.loc[~frame["lesion_id"].isin(other["lesion_id"]), "lesion_id"]
        refuse([(row, lesion["from"], f"{name!r} is not in {file}") for row, name in alone.items()])
    parts = parts.reset_index(names="row").set_index("lesion_id").loc[table["lesion_id"]]
    for name, rule in _SEED.items():
        moved = ~np.isclose(parts[name], table[name], rtol=0, atol=1e-3)
        said = f"differs from the seed in {rules['files']['none']}"
        wrong = parts.loc[moved, ["row", name]].itertuples(index=False)
        refuse([(row, rule["from"], f"{value} {said}") for row, value in wrong])
    return parts["split"].set_axis(table.index)


# ------------------------------------------------------------------------------ derived columns


def stage_group(t: str, n: str, m: str) -> str:
    """Return the stage group of the seventh TNM edition for lung cancer.

    Parameters
    ----------
    t : {"Tis", "T1a", "T1b", "T2a", "T2b", "T3", "T4"}
    n : {"N0", "N1", "N2", "N3"}
    m : {"M0", "M1a", "M1b"}

    Returns
    -------
    str
        ``"0"``, ``"IA"``, ``"IB"``, ``"IIA"``, ``"IIB"``, ``"IIIA"``, ``"IIIB"`` or ``"IV"``
        [1]_.

    References
    ----------
    .. [1] Goldstraw P et al. (2007). The IASLC Lung Cancer Staging Project: proposals for the
       revision of the TNM stage groupings. J Thorac Oncol 2, 706-714.
    """
    if m != "M0":
        return "IV"
    if n == "N3" or (t == "T4" and n == "N2"):
        return "IIIB"
    if n == "N2" or t == "T4" or (t == "T3" and n == "N1"):
        return "IIIA"
    if n == "N1":
        return "IIB" if t == "T2b" else "IIA"
    return {"Tis": "0", "T1a": "IA", "T1b": "IA", "T2a": "IB", "T2b": "IIA", "T3": "IIB"}[t]


def _first_alike(frame: pd.DataFrame) -> pd.Series:
    """Return the first row's name where all other columns are those of an earlier row."""
    name, *others = frame
    first = frame.groupby(others, sort=False)[name].transform("first")
    return first.where(first != frame[name])


def _days_between(frame: pd.DataFrame) -> pd.Series:
    first, second = (pd.to_datetime(frame[c], format="%m/%d/%Y", errors="coerce") for c in frame)
    return (second - first).dt.days


_FUNCTIONS = {
    "days_between": _days_between,
    "first_alike": _first_alike,
    "largest": lambda frame: frame.astype(float).max(axis=1),
    "stage_groups": lambda frame: [stage_group(*row) for row in frame.to_numpy()],
}


# ------------------------------------------------------------------------------ counts and images


def _check_counts(known: CohortCard, table: pd.DataFrame, where: str) -> None:
    """Compare the counts of a table, exclusions not yet made, with those of its card."""
    found = {
        "rows": len(table),
        "scans": table["scan_id"].nunique(),
        "patients": table["patient_id"].nunique(),
        "used_in_reference": table["used_in_reference"].sum(),
        "events": table["event"].sum(),
    }
    for prefix, column in (("label", "label"), ("reference", "label_reference")):
        for value in (0, 1):
            found[f"{prefix}_{value}"] = (table[column] == value).sum()
        found[f"{prefix}_missing"] = table[column].isna().sum()
    wrong = [
        f"{key} is {count}, not {known.expected[key]}"
        for key, count in found.items()
        if count != known.expected.get(key, count)
    ]
    refuse(wrong, f"{where}: the counts are not those of the released table of {known.key}")


def released_folder(data: Path, name: str) -> Path | None:
    """Return the folder of the released tables under ``TUMORBENCH_DATA``, or None.

    Parameters
    ----------
    data : Path
        A folder that holds ``cohorts/released``, or one that is itself laid out like that.
    name : str
        The cohort that is wanted.
    """
    folders = (data / "cohorts" / "released", data)
    return next((f for f in folders if (f / released_files(name)[0]).is_file()), None)


def load_released(name: str, data: Path | None, *, images: bool) -> pd.DataFrame:
    """Return the released table with full image paths and, for LUNA16, the readers' boxes.

    Parameters
    ----------
    name : str
        Key of a cohort of the book.
    data : Path or None
        ``TUMORBENCH_DATA``. Images belong in its folder ``images/NAME``.
    images : bool
        Whether the images must be there. If not, ``image_path`` says where they would be.

    Raises
    ------
    CohortError
        If the tables are not there; and as :func:`read_released_table` and :func:`image_paths`.
    """
    folder = released_folder(data, name) if data else None
    if folder is None:
        first = released_files(name)[0]
        raise CohortError(
            f"{data or 'TUMORBENCH_DATA'} holds neither cohorts/released/{first} nor {first}; get "
            f"it with `tumorbench cohorts fetch {name}` and set TUMORBENCH_DATA to the folder"
        )
    table = read_released_table(name, folder)
    attrs, beside = table.attrs, recipe(name).get("beside")
    if beside and (data / beside["file"]).is_file():
        table = _add_beside(card(name), table, data, beside)
    root = data / "images" / name
    if images:
        table["image_path"] = image_paths(table, root)
    else:
        table["image_path"] = [str(inside(root, relative)) for relative in table["image_path"]]
    table.attrs = attrs
    return table


def _add_beside(known: CohortCard, table: pd.DataFrame, data: Path, rules: Mapping) -> pd.DataFrame:
    """Add covariates from a file that is no part of the release: same lesions, seeds and labels."""
    extra = _columns(data, {"": rules["file"]}, rules["columns"])
    _derive(extra, rules)
    extra = extra.set_index("lesion_id").reindex(table["lesion_id"]).set_axis(table.index)
    for name in (*COORD_LIMITS_MM, "label"):
        differs = ~np.isclose(extra[name], table[name].astype(float), rtol=0, atol=1e-3)
        said = "is absent or is another one than in the released table"
        wrong = [f"column {name!r}: lesion {k} {said}" for k in table["lesion_id"][differs]]
        refuse(wrong, str(data / rules["file"]))
    return table.assign(**{name: extra[name] for name in known.covariates if name in extra})


def image_paths(table: pd.DataFrame, root: Path) -> list[str]:
    """Return the full path of every row's image: an authors' file, or what was fetched.

    Parameters
    ----------
    table : DataFrame
        With ``scan_id`` and ``image_path`` relative to `root`.
    root : Path
        Folder with the images of the cohort.

    Raises
    ------
    CohortError
        If an image is not there: how many, and how to get them.
    """
    fetched = {}
    if (root / "scans.csv").is_file():
        with open(root / "scans.csv", newline="") as stream:
            fetched = {row["scan_id"]: row["path"] for row in csv.DictReader(stream)}
    paths = []
    for scan, relative in zip(table["scan_id"], table["image_path"], strict=True):
        candidates = (inside(root, p) for p in (relative, fetched.get(scan)) if p is not None)
        paths.append(next((str(p) for p in candidates if p.exists()), None))
    absent = table.loc[[path is None for path in paths], "scan_id"].unique()
    if len(absent):
        raise CohortError(
            f"{root}: {len(absent)} of {table['scan_id'].nunique()} scans are not there, for "
            f"example {absent[0]}; get them with `tumorbench cohorts fetch {root.name} --images`"
        )
    return paths
