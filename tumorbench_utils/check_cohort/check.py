"""A cohort read and looked at."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from tumorbench_utils.check_cohort import remarks, report
from tumorbench_utils.check_cohort.scans import across, look
from tumorbench_utils.cohorts import Cohort, CohortCard, CohortError, describe, read_own_table
from tumorbench_utils.files import atomic_path
from tumorbench_utils.settings import edition


@dataclass(frozen=True, eq=False)
class CohortCheck:
    """What was found.

    Attributes
    ----------
    cohort : Cohort
    faults, remarks : list of str
        Faults name row and column of the table's file.
    scans : DataFrame, index ``scan_id``
        ``format, lesions, voxels, axes`` (directions of the array axes), ``in_plane_mm, slice_mm``
        and ``height_mm`` of every scan that could be opened.
    lesions : DataFrame, index ``lesion_id``
        ``margin_mm`` (to the nearest face of the scan, negative outside), ``centre_hu`` (median
        within 3 mm) and ``low_hu, high_hu`` (1st and 99th percentile of the 64 mm around it).
    pictures : dict of str to ndarray, shape (64, 64)
        Axial slices through up to ten lesions, HU.
    """

    cohort: Cohort
    faults: list[str]
    remarks: list[str]
    scans: pd.DataFrame
    lesions: pd.DataFrame
    pictures: dict[str, np.ndarray]

    def html(self) -> str:
        """Return the report as one page that needs no other file."""
        return report.html(self)

    def write(self, path: str | os.PathLike) -> Path:
        """Write the report; the file is whole or absent."""
        path = Path(path)
        with atomic_path(path) as part:
            part.write_text(self.html(), encoding="utf-8")
        return path


def read(path: str | os.PathLike, images: str | os.PathLike | None = None) -> Cohort:
    """Read a cohort from a table with the standard columns or from a description.

    Parameters
    ----------
    path : path-like
        ``.csv``, see ``cohorts.read_own_table``, or ``.yml``, see ``cohorts.describe``.
    images : path-like, optional
        Folder of the scans of a table.

    Raises
    ------
    CohortError
        Naming file, row and column.
    """
    path = Path(path)
    if path.suffix.lower() in (".yml", ".yaml"):
        if images is not None:
            raise CohortError(f"{path}: a description names the folder of the scans itself: images")
        card, reader = describe(path)
        return Cohort(card, edition(), reader(None))
    card = CohortCard(key="cohort", title=path.stem)
    return Cohort(card, edition(), read_own_table(path, images=images))


def check(cohort: Cohort) -> CohortCheck:
    """Look at the table and at every scan of a cohort.

    Parameters
    ----------
    cohort : Cohort
        Of :func:`read`, or any other whose images are there.
    """
    table = cohort.table.reset_index(drop=True)
    chosen = set(across(cohort)["lesion_id"])
    with ThreadPoolExecutor(2) as pool:
        scans = [rows for _, rows in table.groupby("image_path", sort=False)]
        bar = tqdm(pool.map(look, scans), "scans", len(scans), disable=None)  # off in a file
        seen = list(bar)
    faults = [
        f"{remarks.where(table, row, column)}: {fault}"
        for one in seen
        for row, column, fault in one["faults"]
    ]
    scans = pd.DataFrame([one["scan"] for one in seen if one["scan"]])
    lesions = pd.DataFrame([row for one in seen for row in one["lesions"]])
    columns = "lesion_id row margin_mm centre_hu low_hu high_hu digest".split()
    lesions = lesions.reindex(columns=columns).set_index("lesion_id")
    pictures = {k: v for one in seen for k, v in one["slices"].items() if k in chosen}
    faults += remarks.same_picture(table, lesions)
    said = remarks.on_table(table) + remarks.on_scans(table, scans, lesions)
    if not scans.empty:
        scans = scans.set_index("scan_id")
    return CohortCheck(
        cohort, faults, said, scans, lesions.drop(columns=["row", "digest"]), pictures
    )
