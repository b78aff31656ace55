"""One scan: opened, its geometry read, the surroundings of its seeds looked at."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.patches import PatchError, PatchSpec, extract_patches
from tumorbench_utils.patches.extract import open_volume

#: What is looked at around each seed: 64 mm a side, in HU.
SPEC = PatchSpec("SPL", (1, 1, 1), (64, 64, 64), (-1024, 3071), (-1024, 3071))

#: The seed itself. A large patch at the border of a scan has its seed beside the middle.
_CENTRE = replace(SPEC, size=(6, 6, 6))


def look(rows: pd.DataFrame) -> dict:
    """Open one scan, cut the patches of its lesions, and say what is wrong."""
    found = {"faults": [], "scan": None, "lesions": [], "slices": {}}
    path = rows["image_path"].iloc[0]
    try:
        volume = open_volume(path)
    except PatchError as error:
        found["faults"].append((rows.index[0], "image_path", str(error)))
        return found
    affine, shape = volume.affine, np.array(volume.shape)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    head = int(np.abs(affine[2, :3] / spacing).argmax())
    plane = [axis for axis in range(3) if axis != head]
    found["scan"] = {
        "scan_id": rows["scan_id"].iloc[0],
        "format": _format(path),
        "lesions": len(rows),
        "voxels": " x ".join(map(str, shape)),
        "axes": _axes(affine[:3, :3] / spacing),
        "in_plane_mm": spacing[plane].mean(),
        "slice_mm": spacing[head],
        "height_mm": (shape[head] - 1) * spacing[head],
    }
    seeds = rows[["coord_x", "coord_y", "coord_z"]].to_numpy(float)
    index = (seeds - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    margins = (np.minimum(index, shape - 1 - index) * spacing).min(axis=1)
    inside = margins >= -max(spacing) / 2
    for n in np.flatnonzero(~inside):
        said = f"the seed {tuple(seeds[n].round(1).tolist())} lies {-margins[n]:.0f} mm outside"
        said += " the scan" + _hint(seeds[n], affine, shape)
        found["faults"].append((rows.index[n], "coord_x", said))
    for n, made in _patches(path, seeds, np.flatnonzero(inside)):
        row = rows.index[n]
        if isinstance(made, PatchError):
            found["faults"].append((row, "image_path", str(made)))
            continue
        patch, centre = made
        lesion = rows.loc[row, "lesion_id"]
        low, high = np.percentile(patch, [1, 99])
        found["slices"][lesion] = patch[32].copy()
        found["lesions"].append(
            {
                "lesion_id": lesion,
                "row": row,
                "margin_mm": margins[n],
                "centre_hu": float(np.median(centre)),
                "low_hu": low,
                "high_hu": high,
                "digest": hashlib.sha256(patch.round().astype(np.int16).tobytes()).hexdigest(),
            }
        )
    return found


def _patches(path: str, seeds: np.ndarray, which: np.ndarray):
    """Yield the patches of each seed, or the error: one bad seed must not hide the others."""
    specs = [SPEC, _CENTRE]
    try:
        yield from zip(which, extract_patches(path, seeds[which], specs), strict=True)
    except PatchError:
        for n in which:
            try:
                yield n, extract_patches(path, [seeds[n]], specs)[0]
            except PatchError as error:
                yield n, error


def _format(path: str) -> str:
    """Return ``DICOM`` for a folder, else the suffix."""
    if os.path.isdir(path):
        return "DICOM"
    return "".join(Path(path).suffixes[-2:] if path.endswith(".gz") else Path(path).suffixes[-1:])


def _axes(direction: np.ndarray) -> str:
    """Return the directions in which file axes run, and whether they are oblique."""
    letters = ""
    for column in direction.T:
        axis = int(np.abs(column).argmax())
        letters += ("LR", "PA", "SI")[axis][int(column[axis] < 0)]
    oblique = np.abs(direction).max(axis=0).min() < 0.999
    return f"{letters}, oblique" if oblique else letters


def _hint(seed: np.ndarray, affine: np.ndarray, shape: np.ndarray) -> str:
    """Say in which other coordinates a seed would lie inside its scan."""

    def inside(point) -> bool:
        index = np.linalg.solve(affine[:3, :3], point - affine[:3, 3])
        return bool((index >= 0).all() and (index <= shape - 1).all())

    if inside(seed * (-1, -1, 1)):
        return "; with x and y negated it lies inside: are these RAS coordinates? LPS is needed"
    if (seed >= 0).all() and (seed <= shape - 1).all():
        return "; as voxel numbers it lies inside: LPS mm are needed"
    return ""


def across(cohort: Cohort) -> pd.DataFrame:
    """Return up to ten lesions across the sizes, or spread over the table."""
    size = cohort.size_column
    rows = cohort.table.sort_values(size) if size else cohort.table
    at = np.unique(np.linspace(0, len(rows) - 1, min(10, len(rows))).round().astype(int))
    return rows.iloc[at]
