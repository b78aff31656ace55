"""The two functions that everything else calls."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tumorbench_utils.checks import numbers
from tumorbench_utils.patches import dicom, formats
from tumorbench_utils.patches.grid import BenchmarkGrid, joined
from tumorbench_utils.patches.intensity import check_intensity
from tumorbench_utils.patches.resample import box_of, sample
from tumorbench_utils.patches.spec import AXIS_LETTERS, PatchError, PatchSpec, require
from tumorbench_utils.patches.volume import ImageVolume, Volume, readable
from tumorbench_utils.settings import unknown

GRIDS = ("exact", "monai14")


def extract_patch(
    image, seed_lps_mm: Sequence[float], spec: PatchSpec, *, grid: str = "exact"
) -> np.ndarray:
    """Cut the patch around one seed, as the published benchmark would.

    Parameters
    ----------
    image : path-like or SimpleITK.Image
        A CT in HU: ``.nii``, ``.nii.gz``, ``.mhd``, ``.mha``, ``.nrrd``, a folder with one DICOM
        series, or an image in memory. Of a file only the region under the patch is read; of a
        compressed one, what comes before it as well.
    seed_lps_mm : sequence of 3 floats
        Centre of the lesion in LPS mm (x to the left, y to the back, z to the head).
    spec : PatchSpec
        What the network wants to see.
    grid : {"exact", "monai14"}
        ``"exact"`` samples where the grid says. ``"monai14"`` repeats the coordinates of
        MONAI 1.4 to 1.5, with which the published embeddings were made: they are stretched by a
        fraction of a voxel across the scan.

    Returns
    -------
    ndarray of float32, shape `spec.size`
        Axes in the order of `spec.orientation`, values in `spec.out_range`. Outside the scan the
        interpolation sees 0 HU; where the patch leaves the grid, it is filled with 0 *after*
        scaling, evenly on both sides, so that a lesion at the border moves off centre. Both are
        the benchmark's.

    Raises
    ------
    PatchError
        If the image cannot be read whole, is not a 3-D CT in HU on an even grid, or the seed is
        not finite or further outside than half a patch.

    References
    ----------
    Pai S et al. (2025), TumorImagingBench, for the patch; the MONAI project, for the grids.
    """
    return extract_patches(image, [seed_lps_mm], [spec], grid=grid)[0][0]


def extract_patches(
    image, seeds: Sequence[Sequence[float]], specs: Sequence[PatchSpec], *, grid: str = "exact"
) -> list[list[np.ndarray]]:
    """Cut the patches of all seeds and specs of one scan, reading it once.

    Specs that differ in orientation and window only share one resampling, and so do patches that
    overlap much: of many seeds around one lesion, or of several sizes around one seed.

    Parameters
    ----------
    image, grid
        As for :func:`extract_patch`.
    seeds : sequence of n points, LPS mm
    specs : sequence of m PatchSpec

    Returns
    -------
    list of n lists of m ndarrays
        ``result[a][b]`` is the patch of seed a for spec b.

    Raises
    ------
    PatchError
        As for :func:`extract_patch`; one bad seed refuses the call, and the message names it.
    """
    require(grid in GRIDS, unknown("grid", grid, GRIDS))
    volume = open_volume(image)
    named = f"{volume.name}: seeds (x, y, z in LPS mm)"
    seeds = seeds if len(seeds) else np.zeros((0, 3))
    points = numbers(seeds, named, ndim=2, error=PatchError)
    require(points.shape[1] == 3, f"{named} must be three numbers, not {points.shape[1]}")
    # One crop for all specs of one spacing and size: they differ in turning and scaling only.
    parts = {}
    for mm in dict.fromkeys(spec.spacing_mm for spec in specs if len(points)):
        whole, crops = BenchmarkGrid(volume.affine, volume.shape, mm), {}
        for n, point in enumerate(points):
            what = f"{volume.name}, seed {n} {tuple(point.tolist())}"
            for size in {spec.world_size: None for spec in specs if spec.spacing_mm == mm}:
                crops[n, mm, size] = whole.crop(point, size, grid, what)
        parts |= dict(zip(crops, joined(list(crops.values())), strict=True))
    needed = list(dict.fromkeys(crop for crop, _ in parts.values()))
    boxes = [box_of(crop, volume.shape) for crop in needed]
    values = volume.read(boxes)
    check_intensity(volume, values)
    # The voxels of a box are let go as soon as it is sampled.
    pairs = zip(needed, boxes, strict=True)
    hu = {crop: sample(values.pop(0), box, crop) for crop, box in pairs}

    def patch(n: int, spec: PatchSpec) -> np.ndarray:
        crop, part = parts[n, spec.spacing_mm, spec.world_size]
        return _finish(hu[crop][part], spec)

    return [[patch(n, spec) for spec in specs] for n in range(len(points))]


def open_volume(image) -> Volume:
    """Open a path or a SimpleITK image, of a scan or a mask.

    Raises
    ------
    PatchError
        If it is neither, does not exist, or is not a 3-D image that can be read.
    """
    if isinstance(image, sitk.Image):
        labels = image.GetPixelIDTypeAsString().startswith("label")  # would end the process
        require(not labels, "the image is a map of labels, not a CT; give the scan in HU")
        return ImageVolume("the image", image)
    with readable(image):
        path = Path(image)
        if path.is_dir():
            return dicom.open_series(path)
        there = path.is_file() and path.stat().st_size
        require(there, "there is no such file, or it is empty; check the path of the scan")
        return formats.open_file(path)


def sources(image: str | os.PathLike) -> list[Path]:
    """Return every file that reading a scan opens: what a kept result depends on.

    Parameters
    ----------
    image : path-like
        A file or a folder with a DICOM series.

    Returns
    -------
    list of Path
        The file itself, the file with its voxels that a header of MetaImage or NRRD names, or all
        files of the folder; sorted.

    Raises
    ------
    PatchError
        If it does not exist or its header cannot be read.
    """
    path = Path(image)
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file())
    with readable(path):
        require(path.exists(), "there is no such file; check the path of the scan")
        return sorted({path, formats.voxel_file(path)})


def _finish(hu: np.ndarray, spec: PatchSpec) -> np.ndarray:
    """Turn HU along x, y, z (RAS) to the spec's axes, scale, clip and fill up."""
    axes, signs = zip(*(AXIS_LETTERS[letter] for letter in spec.orientation), strict=True)
    turned = hu.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
    low, high = spec.window_hu
    bottom, top = spec.out_range
    patch = np.zeros(spec.size, np.float32)
    gaps = np.subtract(spec.size, turned.shape) // 2
    inner = patch[tuple(slice(a, a + n) for a, n in zip(gaps, turned.shape, strict=True))]
    np.subtract(turned, np.float32(low), out=inner)
    inner /= np.float32(high - low)
    inner *= np.float32(top - bottom)
    inner += np.float32(bottom)
    np.clip(inner, np.float32(bottom), np.float32(top), out=inner)
    return patch
