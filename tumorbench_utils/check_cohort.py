"""A look at the scans of a cohort before anything is computed: what would spoil a result.

``tumorbench check-cohort`` makes a page of it with ``notebooks/reports/check_cohort.ipynb``.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk
from tqdm import tqdm

from tumorbench_utils import digests
from tumorbench_utils.cohorts import Cohort, CohortCard, CohortError, describe, read_own_table
from tumorbench_utils.patches import PatchError, PatchSpec, extract_patches
from tumorbench_utils.patches.extract import open_volume
from tumorbench_utils.settings import edition

#: What is looked at around each seed: 64 mm a side, in HU.
SPEC = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), (-1024, 3071), (-1024, 3071))

#: The seed itself. A large patch at the border of a scan has its seed beside the middle.
_CENTRE = replace(SPEC, size=(6, 6, 6))

_SEED = ["coord_x", "coord_y", "coord_z"]

#: Other conventions in which coordinates come, as (name, where the seed then is in LPS mm).
_CONVENTIONS = {
    "with x and y negated (RAS)": lambda seed, affine: seed * (-1, -1, 1),
    "with x negated": lambda seed, affine: seed * (-1, 1, 1),
    "with y negated": lambda seed, affine: seed * (1, -1, 1),
    "as voxel numbers": lambda seed, affine: affine[:3, :3] @ seed + affine[:3, 3],
    "as voxel numbers z, y, x": lambda seed, affine: affine[:3, :3] @ seed[::-1] + affine[:3, 3],
}

_SCAN = "scan_id format lesions voxels axes in_plane_mm slice_mm height_mm".split()
_LESION = "lesion_id row digest margin_mm centre_hu low_hu high_hu".split() + list(_CONVENTIONS)


class CohortCheck(NamedTuple):
    """What was found.

    Attributes
    ----------
    cohort : Cohort
    faults : list of str
        They name row and column of the table's file.
    scans : DataFrame, index ``scan_id``
        ``format, lesions, voxels, axes`` (directions of the array axes), ``in_plane_mm, slice_mm``
        and ``height_mm`` of every scan that could be opened.
    lesions : DataFrame, index ``lesion_id``
        ``margin_mm`` (to the nearest face of the scan, negative outside), ``centre_hu`` (median
        within 3 mm), ``low_hu, high_hu`` (lowest and highest of the 64 mm around it) and, for each
        other convention in which the seed would lie in the scan too, the median there.
    """

    cohort: Cohort
    faults: list[str]
    scans: pd.DataFrame
    lesions: pd.DataFrame


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
    if path.suffix.lower() not in (".yml", ".yaml"):
        card = CohortCard(key="cohort", title=path.stem)
        return Cohort(card, edition(), read_own_table(path, images=images))
    if images is not None:
        raise CohortError(f"{path}: a description names the folder of the scans itself: images")
    card, reader = describe(path)
    return Cohort(card, edition(), reader(None))


def check(cohort: Cohort) -> CohortCheck:
    """Look at every scan of a cohort and at the surroundings of every seed.

    Parameters
    ----------
    cohort : Cohort
        Of :func:`read`, or any other whose images are there.
    """
    table = cohort.table.reset_index(drop=True)
    groups = [rows for _, rows in table.groupby("image_path", sort=False)]
    quiet = "TUMORBENCH_QUIET" in os.environ  # on a page of the book
    with ThreadPoolExecutor(2) as pool:
        seen = list(tqdm(pool.map(_look, groups), "scans", len(groups), disable=quiet))
    faults = [fault for one, _, _ in seen for fault in one]
    scans = pd.DataFrame([scan for _, scan, _ in seen if scan], columns=_SCAN)
    lesions = pd.DataFrame([row for _, _, rows in seen for row in rows], columns=_LESION)
    for _, alike in lesions.groupby("digest", sort=False):
        first, *others = [table.loc[row] for row in alike["row"]]
        for other in others:
            if other["patient_id"] != first["patient_id"]:
                said = (
                    f"shows the same scan at the same place as {first['lesion_id']} of "
                    f"{first['patient_id']}: one patient under two names?"
                )
                faults.append((other.name, "patient_id", said))
    return CohortCheck(
        cohort,
        [f"{where(table, row, column)}: {fault}" for row, column, fault in faults],
        scans.set_index("scan_id"),
        lesions.set_index("lesion_id").drop(columns=["row", "digest"]),
    )


def where(table: pd.DataFrame, row: int, column: str) -> str:
    """Return how a cell is called: by file, row and column, as far as the table knows them."""
    called = table.attrs.get("called", {}).get(column, column)
    rows = table.attrs.get("rows", range(len(table)))
    file = f"{table.attrs['file']}: " if "file" in table.attrs else ""
    return f"{file}row {rows[row]}, column {called!r} ({table.loc[row, 'lesion_id']})"


def _look(rows: pd.DataFrame) -> tuple[list, dict | None, list]:
    """Open one scan; return its faults (row, column, text), its geometry, and its lesions."""
    path = rows["image_path"].iloc[0]
    try:
        volume = open_volume(path)
    except PatchError as error:
        return [(rows.index[0], "image_path", str(error))], None, []
    affine, shape = volume.affine, np.array(volume.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel())
    oblique = ", oblique" if np.abs(direction).max(axis=0).min() < 0.999 else ""
    head, suffixes = int(np.abs(direction[2]).argmax()), Path(path).suffixes
    scan = {
        "scan_id": rows["scan_id"].iloc[0],
        "format": "DICOM" if os.path.isdir(path) else "".join(suffixes[-1 - (".gz" in suffixes) :]),
        "lesions": len(rows),
        "voxels": " x ".join(map(str, shape)),
        "axes": axes + oblique,
        "in_plane_mm": np.delete(spacing, head).mean(),
        "slice_mm": spacing[head],
        "height_mm": (shape[head] - 1) * spacing[head],
    }

    def margin(seed: np.ndarray) -> float:
        index = np.linalg.solve(affine[:3, :3], seed - affine[:3, 3])
        return (np.minimum(index, shape - 1 - index) * spacing).min()

    faults, lesions, inside = [], [], {}
    for row, seed in zip(rows.index, rows[_SEED].to_numpy(float), strict=True):
        moved = {name: move(seed, affine) for name, move in _CONVENTIONS.items()}
        others = {name: point for name, point in moved.items() if margin(point) >= 0}
        if margin(seed) >= -max(spacing) / 2:
            inside[row] = {"centre_hu": seed, **others}
            continue
        said = f"the seed {tuple(seed.round(1).tolist())} lies {-margin(seed):.0f} mm outside"
        said += f" the scan; {' or '.join(others)} it lies inside: LPS mm are needed" * bool(others)
        faults.append((row, "coord_x", said))
    for (row, points), found in zip(inside.items(), _patches(path, inside), strict=True):
        if isinstance(found, PatchError):
            faults.append((row, "image_path", str(found)))
            continue
        patch, medians = found
        lesions.append(
            {
                "row": row,
                "lesion_id": rows.loc[row, "lesion_id"],
                "margin_mm": margin(points["centre_hu"]),
                "low_hu": patch.min(),
                "high_hu": patch.max(),
                "digest": digests.of(patch.round()),
                **medians,
            }
        )
    return faults, scan, lesions


def _patches(path: str, inside: dict[int, dict]) -> list:
    """Return patch and medians of each row, or an error: one must not hide the others."""
    seeds = [points["centre_hu"] for points in inside.values()]
    every = [point for points in inside.values() for point in points.values()]
    try:
        patches = [patch for (patch,) in extract_patches(path, seeds, [SPEC])]
        medians = (float(np.median(c)) for (c,) in extract_patches(path, every, [_CENTRE]))
        return [
            (patch, {name: next(medians) for name in points})
            for patch, points in zip(patches, inside.values(), strict=True)
        ]
    except PatchError as error:
        if len(inside) == 1:
            return [error]
        return [_patches(path, {row: points})[0] for row, points in inside.items()]
