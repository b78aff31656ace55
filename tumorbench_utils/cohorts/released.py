"""The released tables: found, read, checked against their card.

The tables are those of the published benchmark (AIM-Harvard/TumorImagingBench, ``data/eval``).
Their paths point to the authors' disks; of each only the part that names the scan is kept, and
checked against the row. The stored train, validation and test parts are kept in ``split`` although
the published protocol ignores them.
"""

import csv
import os
from pathlib import Path

import pandas as pd

from tumorbench_utils.cohorts.cards import CohortCard, CohortError
from tumorbench_utils.cohorts.readers import READERS
from tumorbench_utils.cohorts.readers.nodules import add_reader_boxes
from tumorbench_utils.cohorts.registry import card, is_own, read_own
from tumorbench_utils.cohorts.tables import check_standard
from tumorbench_utils.files import inside


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
    reader, files = READERS[name]
    if not folder.is_dir():
        raise CohortError(f"{folder}: no such folder; it should hold {files[0]}")
    where = str(folder / files[0] if len(files) == 1 else (folder / files[0]).parent)
    table, anomalies = reader(folder, files)
    table = check_standard(table, where)
    _check_counts(known, table, where)
    excluded = []
    for lesion, reason in known.exclusions.items():
        if lesion not in set(table["lesion_id"]):
            raise CohortError(f"{where}: {lesion}, which the card leaves out, is not in the table")
        excluded.append({"lesion_id": lesion, "reason": reason})
    table = table[~table["lesion_id"].isin(list(known.exclusions))].reset_index(drop=True)
    table.attrs.update(cohort=name, excluded=excluded, anomalies=anomalies)
    return table


def _check_counts(known: CohortCard, table: pd.DataFrame, where: str) -> None:
    """Compare the counts of a table, exclusions not yet made, with those of its card."""
    found = {
        "rows": len(table),
        "scans": table["scan_id"].nunique(),
        "patients": table["patient_id"].nunique(),
        "used_in_reference": int(table["used_in_reference"].sum()),
    }
    for prefix, column in (("label", "label"), ("reference", "label_reference")):
        found[f"{prefix}_0"] = int((table[column] == 0).sum())
        found[f"{prefix}_1"] = int((table[column] == 1).sum())
        found[f"{prefix}_missing"] = int(table[column].isna().sum())
    if known.has_survival:
        found["events"] = int(table["event"].sum())
    wrong = [
        f"{key} is {count}, not {known.expected[key]}"
        for key, count in found.items()
        if count != known.expected[key]
    ]
    if wrong:
        raise CohortError(
            f"{where}: the counts are not those of the released table of {known.key}: "
            f"{'; '.join(wrong)}"
        )


def released_folder(data: Path, name: str) -> Path:
    """Return the folder of the released tables under ``TUMORBENCH_DATA``.

    Parameters
    ----------
    data : Path
        A folder that holds ``cohorts/released``, or one that is itself laid out like that.
    name : str
        The cohort that is wanted.

    Raises
    ------
    CohortError
        If the cohort's first file is in neither place.
    """
    first = READERS[name][1][0]
    for folder in (data / "cohorts" / "released", data):
        if (folder / first).is_file():
            return folder
    raise CohortError(
        f"{data}: holds neither cohorts/released/{first} nor {first}; get it with "
        f"`tumorbench cohorts fetch {name}`"
    )


def load_released(name: str, data: Path, *, images: bool) -> pd.DataFrame:
    """Return the released table with full image paths and, for LUNA16, the readers' boxes.

    Parameters
    ----------
    name : str
        Key of a cohort of the book.
    data : Path
        ``TUMORBENCH_DATA``. Images belong in its folder ``images/NAME``.
    images : bool
        Whether the images must be there. If not, ``image_path`` says where they would be.

    Raises
    ------
    CohortError
        As :func:`read_released_table` and :func:`image_paths`.
    """
    table = read_released_table(name, released_folder(data, name))
    attrs = table.attrs
    boxes = data / "cohorts" / "clean" / "LUNA16.csv"
    if name == "luna16" and boxes.is_file():
        table = add_reader_boxes(table, boxes)
    root = data / "images" / name
    if images:
        table["image_path"] = image_paths(table, root)
    else:
        table["image_path"] = [str(inside(root, relative)) for relative in table["image_path"]]
    table.attrs = attrs
    return table


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
    paths, absent = [], []
    for scan, relative in zip(table["scan_id"], table["image_path"], strict=True):
        candidates = (inside(root, p) for p in (relative, fetched.get(scan)) if p is not None)
        path = next((p for p in candidates if p.exists()), None)
        if path is None:
            absent.append(scan)
        paths.append(str(path))
    if absent:
        raise CohortError(
            f"{root}: {len(set(absent))} of {table['scan_id'].nunique()} scans are not there, for "
            f"example {absent[0]}; get them with `tumorbench cohorts fetch {root.name} --images`"
        )
    return paths
