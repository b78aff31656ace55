"""The two functions that everything else calls."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from tumorbench_utils.patches import dicom, formats
from tumorbench_utils.patches.grid import BenchmarkGrid, joined
from tumorbench_utils.patches.intensity import check_intensity
from tumorbench_utils.patches.resample import box_of, sample
from tumorbench_utils.patches.spec import AXIS_LETTERS, PatchError, PatchSpec
from tumorbench_utils.patches.volume import ImageVolume, Volume, check_header, readable
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
    if grid not in GRIDS:
        raise PatchError(unknown("grid", grid, GRIDS))
    specs = _check_specs(specs)
    points = _check_seeds(seeds, name_of(image))
    volume = open_volume(image)
    spacings = {spec.spacing_mm for spec in specs}
    grids = {mm: BenchmarkGrid(volume.affine, volume.shape, mm) for mm in spacings}
    crops: dict[tuple, dict] = {mm: {} for mm in spacings}
    for n, point in enumerate(points):
        for spec in specs:
            of_grid, key = crops[spec.spacing_mm], (n, spec.spacing_mm, spec.world_size)
            if key not in of_grid:
                what = f"{volume.name}, seed {n} {tuple(point.tolist())}"
                of_grid[key] = grids[spec.spacing_mm].crop(point, spec.world_size, grid, what)
    parts = {}
    for of_grid in filter(None, crops.values()):
        parts |= dict(zip(of_grid, joined(list(of_grid.values())), strict=True))
    needed = list({id(crop): crop for crop, _ in parts.values()}.values())
    boxes = [box_of(crop, volume.shape) for crop in needed]
    values = volume.read(boxes)
    check_intensity(volume, values)
    hu = {}
    for crop, box in zip(needed, boxes, strict=True):
        # The voxels of a box are let go as soon as it is sampled.
        hu[id(crop)] = sample(values.pop(0), box, volume.shape, crop)

    def cube(n: int, spec: PatchSpec) -> np.ndarray:
        crop, part = parts[n, spec.spacing_mm, spec.world_size]
        return hu[id(crop)][part]

    return [[_finish(cube(n, spec), spec) for spec in specs] for n in range(len(points))]


def name_of(image) -> str:
    """Return what an image is called in messages: its path, or "the image"."""
    return str(image) if isinstance(image, (str, os.PathLike)) else "the image"


def open_volume(image) -> Volume:
    """Open a path or a SimpleITK image.

    Raises
    ------
    PatchError
        If it is neither, does not exist, or is not a 3-D scan that can be read.
    """
    if isinstance(image, sitk.Image):
        if image.GetPixelIDTypeAsString().startswith("label"):  # SimpleITK would end the process
            raise PatchError("the image is a map of labels, not a CT; give the scan in HU")
        check_header(name_of(image), image, image.GetNumberOfComponentsPerPixel())
        return ImageVolume(name_of(image), image)
    if not isinstance(image, (str, os.PathLike)) or isinstance(os.fspath(image), bytes):
        raise PatchError(
            f"an image must be a path or a SimpleITK image, got {type(image).__name__}; an array "
            "alone does not say where it lies in space"
        )
    path = Path(image)
    with readable(str(path)):
        if path.is_dir():
            return dicom.open_series(path)
        if not path.exists():
            raise PatchError(f"{path}: there is no such file; check the path of the scan")
        if path.stat().st_size == 0:
            raise PatchError(f"{path}: the file is empty; fetch or convert it again")
        return formats.open_file(path)


def _check_specs(specs) -> list[PatchSpec]:
    if isinstance(specs, PatchSpec):
        raise PatchError("specs must be a list of PatchSpec; put the one spec into a list")
    try:
        specs = list(specs)
    except TypeError as error:
        raise PatchError(f"specs must be a list of PatchSpec, got {specs!r}") from error
    for spec in specs:
        if not isinstance(spec, PatchSpec):
            raise PatchError(f"a spec must be a PatchSpec, got {type(spec).__name__}")
    return specs


def _check_seeds(seeds, name: str) -> np.ndarray:
    """Return the seeds as an array of shape (n, 3), or say which is none."""
    try:
        array = np.asarray(seeds)
        text = array.dtype.kind == "O" and any(isinstance(x, (str, bytes)) for x in array.ravel())
        if array.dtype.kind not in "iufO" or text:
            raise TypeError(f"values of type {array.dtype.name}")
        points = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise PatchError(
            f"{name}: a seed must be three numbers (x, y, z) in LPS mm, got {seeds!r}"
        ) from error
    if points.shape == (0,):
        return points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise PatchError(
            f"{name}: seeds must be a list of three numbers (x, y, z) each, in LPS mm, got an "
            f"array of shape {points.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(points).all(axis=1))
    if bad.size:
        raise PatchError(
            f"{name}: seed {bad[0]} is not finite: {tuple(points[bad[0]].tolist())}; leave out "
            "lesions without coordinates"
        )
    return points


def _finish(hu: np.ndarray, spec: PatchSpec) -> np.ndarray:
    """Turn HU along x, y, z (RAS) to the spec's axes, scale, clip and fill up."""
    letters = [AXIS_LETTERS[letter] for letter in spec.orientation]
    turned = hu.transpose([axis for axis, _ in letters])
    turned = turned[tuple(slice(None, None, sign) for _, sign in letters)]
    low, high = spec.window_hu
    bottom, top = spec.out_range
    patch = np.zeros(spec.size, np.float32)
    missing = [side - have for side, have in zip(spec.size, turned.shape, strict=True)]
    inner = patch[
        tuple(
            slice(gap // 2, gap // 2 + have)
            for gap, have in zip(missing, turned.shape, strict=True)
        )
    ]
    np.subtract(turned, np.float32(low), out=inner)
    inner /= np.float32(high - low)
    inner *= np.float32(top - bottom)
    inner += np.float32(bottom)
    np.clip(inner, np.float32(bottom), np.float32(top), out=inner)
    return patch
