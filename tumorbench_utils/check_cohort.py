"""A look at the scans of a cohort before anything is computed: what would spoil a result.

``tumorbench check-cohort`` makes a page of it with ``notebooks/reports/check_cohort.ipynb``.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import SimpleITK as sitk
from tqdm import tqdm

from tumorbench_utils import digests
from tumorbench_utils.cohorts import Cohort, CohortCard, CohortError, describe
from tumorbench_utils.cohorts.own import read_own_table
from tumorbench_utils.patches import PatchError, PatchSpec, extract_patches
from tumorbench_utils.patches.extract import open_volume
from tumorbench_utils.settings import edition

#: What is looked at around each seed: 64 mm a side, in HU.
SPEC = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), (-1024, 3071), (-1024, 3071))

#: The seed itself. A large patch at the border of a scan has its seed beside the middle.
_CENTRE = replace(SPEC, size=(6, 6, 6))

_SEED = ["coord_x", "coord_y", "coord_z"]

#: Other conventions in which coordinates come: where seeds then are in LPS mm.
_CONVENTIONS = {
    "with x and y negated (RAS)": lambda seeds, to_mm: seeds * (-1, -1, 1),
    "with x negated": lambda seeds, to_mm: seeds * (-1, 1, 1),
    "with y negated": lambda seeds, to_mm: seeds * (1, -1, 1),
    "as voxel numbers": lambda seeds, to_mm: to_mm(seeds),
    "as voxel numbers z, y, x": lambda seeds, to_mm: to_mm(seeds[:, ::-1]),
}

_SCAN = "scan_id format lesions voxels axes in_plane_mm slice_mm height_mm".split()
_LESION = "row lesion_id digest margin_mm centre_hu low_hu high_hu".split() + list(_CONVENTIONS)


class CohortCheck(NamedTuple):
    """What was found.

    Attributes
    ----------
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
    faults, scans, rows = (list(chain(*found)) for found in zip(*seen, strict=True))
    lesions = pd.DataFrame(rows, columns=_LESION).set_index("row")
    for _, alike in lesions.join(table["patient_id"]).groupby("digest", sort=False):
        first = alike.iloc[0]
        for row in alike.index[alike["patient_id"] != first["patient_id"]]:
            same = f"{first['lesion_id']} of {first['patient_id']}: one patient under two names?"
            faults.append((row, "patient_id", f"shows the same scan at the same place as {same}"))
    return CohortCheck(
        [f"{where(table, row, column)}: {fault}" for row, column, fault in faults],
        pd.DataFrame(scans, columns=_SCAN).set_index("scan_id"),
        lesions.set_index("lesion_id").drop(columns="digest"),
    )


def where(table: pd.DataFrame, row: int, column: str) -> str:
    """Return how a cell is called: by file, row and column, as far as the table knows them."""
    called = table.attrs.get("called", {}).get(column, column)
    rows = table.attrs.get("rows", range(len(table)))
    file = f"{table.attrs['file']}: " if "file" in table.attrs else ""
    return f"{file}row {rows[row]}, column {called!r} ({table.loc[row, 'lesion_id']})"


def _look(rows: pd.DataFrame) -> tuple[list, list, list]:
    """Open one scan; return its faults (row, column, text), its geometry, and its lesions."""
    path, seeds = rows["image_path"].iloc[0], rows[_SEED].to_numpy(float)
    try:
        volume = open_volume(path)
    except PatchError as error:
        return [(rows.index[0], "image_path", str(error))], [], []
    affine, shape = volume.affine, np.array(volume.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    direction = affine[:3, :3] / spacing
    axes = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel())
    axes += ", oblique" * bool(np.abs(direction).max(axis=0).min() < 0.999)
    head, suffixes = int(np.abs(direction[2]).argmax()), Path(path).suffixes
    kind = "DICOM" if os.path.isdir(path) else "".join(suffixes[-1 - (".gz" in suffixes) :])
    size = np.delete(spacing, head).mean(), spacing[head], (shape[head] - 1) * spacing[head]
    scan = [rows["scan_id"].iloc[0], kind, len(rows), " x ".join(map(str, shape)), axes, *size]
    # Seeds by convention, the own one first: (lesion, convention, coordinate).
    turn, origin = affine[:3, :3].T, affine[:3, 3]
    moved = [move(seeds, lambda at: at @ turn + origin) for move in _CONVENTIONS.values()]
    points = np.stack([seeds, *moved], axis=1)
    index = (points - origin) @ np.linalg.inv(turn)
    margin = (np.minimum(index, shape - 1 - index) * spacing).min(axis=2)
    inside, faults = margin >= 0, []
    inside[:, 0] = margin[:, 0] >= -max(spacing) / 2
    for n in np.flatnonzero(~inside[:, 0]):
        said = f"the seed {tuple(seeds[n].round(1).tolist())} lies {-margin[n, 0]:.0f} mm outside"
        others = " or ".join(np.array(list(_CONVENTIONS))[inside[n, 1:]])
        said += " the scan" + f"; {others} it lies inside: LPS mm are needed" * bool(others)
        faults.append((rows.index[n], "coord_x", said))
    kept, inside = np.flatnonzero(inside[:, 0]), inside & inside[:, :1]
    try:
        patches = extract_patches(path, seeds[kept], [SPEC])
        centres = extract_patches(path, points[inside], [_CENTRE])
    except PatchError as error:
        return [*faults, (rows.index[0], "image_path", str(error))], [scan], []
    hu, lesions = np.full(inside.shape, np.nan), []
    hu[inside] = [np.median(centre) for (centre,) in centres]
    for n, (patch,) in zip(kept, patches, strict=True):
        names = rows.index[n], rows["lesion_id"].iloc[n], digests.of(patch.round())
        own = margin[n, 0], hu[n, 0], patch.min(), patch.max()
        lesions.append([*names, *own, *hu[n, 1:]])
    return faults, [scan], lesions
