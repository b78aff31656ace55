"""Changed scans: what another protocol would have made of one, and controls with shuffled voxels.

For phantoms ``phantoms.render`` scans the same lesion again, which is the better experiment. These
functions do what can be done to a real scan, after it was made.
"""

import os

import numpy as np
import SimpleITK as sitk

from tumorbench_utils.robustness.agreement import RobustnessError
from tumorbench_utils.settings import unknown

REGIONS = ("lesion", "background")

#: Correlation of the noise of a CT in its plane: a Gaussian of this standard deviation, mm.
_GRAIN_MM = 0.5

#: Full width at half maximum of a Gaussian, in standard deviations.
_FWHM = 2 * np.sqrt(2 * np.log(2))


def _open(image, what: str) -> sitk.Image:
    if isinstance(image, (str, os.PathLike)):
        try:
            image = sitk.ReadImage(str(image))
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise RobustnessError(f"{what} {image} cannot be read: {reason}") from error
    if not isinstance(image, sitk.Image):
        raise RobustnessError(f"{what} is a path or a SimpleITK image, not {type(image).__name__}")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise RobustnessError(f"{what} must have three dimensions and one value per voxel")
    return image


def perturb(
    image,
    *,
    kernel_mm: float = 0.0,
    thickness_mm: float = 0.0,
    spacing_mm: float | None = None,
    slice_mm: float | None = None,
    noise_hu: float = 0.0,
    hu_scale: float = 1.0,
    hu_shift: float = 0.0,
    seed: int = 0,
) -> sitk.Image:
    """Return a scan as a smoother, thicker, coarser, noisier or ill-calibrated one.

    The steps follow the order of the arguments. Nothing sharpens: what a kernel has removed cannot
    be had back from an image.

    Parameters
    ----------
    image : path-like or SimpleITK.Image
        A CT in HU.
    kernel_mm : float
        Standard deviation of a Gaussian in the plane of the slices: a softer kernel.
    thickness_mm : float
        Full width at half maximum of a Gaussian across the slices: thicker ones.
    spacing_mm, slice_mm : float, optional
        Distance of the voxels in the plane and of the slices; linear resampling.
    noise_hu : float
        Standard deviation of noise with the grain of a CT that is added.
    hu_scale, hu_shift : float
        ``HU * hu_scale + hu_shift``: an error of the calibration.
    seed : int
        Of the noise.

    Returns
    -------
    SimpleITK.Image
        int16, from -1024 to 3071 HU; without changes, the scan itself in that range.

    Raises
    ------
    RobustnessError
        If an argument is out of range or not finite, or the image is not a 3-D one.
    """
    image = _open(image, "the scan")
    lengths = {"kernel_mm": kernel_mm, "thickness_mm": thickness_mm, "noise_hu": noise_hu}
    for name, value in lengths.items():
        if not (_is_number(value) and value >= 0):
            raise RobustnessError(f"{name} must be 0 or more, not {value!r}")
    for name, value in {
        "spacing_mm": spacing_mm,
        "slice_mm": slice_mm,
        "hu_scale": hu_scale,
    }.items():
        if value is not None and not (_is_number(value) and value > 0):
            raise RobustnessError(f"{name} must be above 0, not {value!r}")
    if not _is_number(hu_shift):
        raise RobustnessError(f"hu_shift must be a number of HU, not {hu_shift!r}")
    # The file axis of the slices is the one that runs most from foot to head.
    across = int(np.abs(np.reshape(image.GetDirection(), (3, 3))[2]).argmax())
    plane = [axis for axis in range(3) if axis != across]
    image = sitk.Cast(image, sitk.sitkFloat32)
    if kernel_mm > 0:
        image = _smooth(image, plane, kernel_mm)
    if thickness_mm > 0:
        image = _smooth(image, [across], thickness_mm / _FWHM)
    image = _resampled(image, plane, across, spacing_mm, slice_mm)
    if noise_hu > 0:
        image += _noise(image, plane, noise_hu, seed)
    image = sitk.Clamp(
        sitk.Round(image * float(hu_scale) + float(hu_shift)), sitk.sitkInt16, -1024, 3071
    )
    return image


def _is_number(value) -> bool:
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    return real and bool(np.isfinite(value))


def _smooth(image: sitk.Image, axes: list[int], sd_mm: float) -> sitk.Image:
    # The discrete kernel also holds for widths below a voxel, the recursive one does not.
    variance = [sd_mm**2 if axis in axes else 0.0 for axis in range(3)]
    return sitk.DiscreteGaussian(
        image, variance, maximumKernelWidth=64, maximumError=1e-4, useImageSpacing=True
    )


def _resampled(image, plane, across, spacing_mm, slice_mm) -> sitk.Image:
    spacing = list(image.GetSpacing())
    for axis in plane:
        spacing[axis] = spacing_mm or spacing[axis]
    spacing[across] = slice_mm or spacing[across]
    if spacing == list(image.GetSpacing()):
        return image
    old = zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    size = [max(1, int(np.floor((n - 1) * a / b + 1e-6)) + 1) for n, a, b in old]
    grid = (image.GetOrigin(), spacing, image.GetDirection())
    return sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, *grid)


def _noise(image: sitk.Image, plane: list[int], noise_hu: float, seed: int) -> sitk.Image:
    shape = image.GetSize()[::-1]
    white = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
    noise = sitk.GetImageFromArray(white)
    noise.CopyInformation(image)
    noise = _smooth(noise, plane, _GRAIN_MM)
    return noise * float(noise_hu / sitk.GetArrayViewFromImage(noise).std())


def shuffled(image, mask, region: str, *, seed: int = 0, margin_mm: float = 45.0) -> sitk.Image:
    """Return a scan in which the voxels of a lesion, or those around it, have changed places.

    The values of a region stay the same as a set: its histogram is kept, its structure is not.

    Parameters
    ----------
    image : path-like or SimpleITK.Image
    mask : path-like or SimpleITK.Image
        On the grid of the image, above 0 in the lesion.
    region : {"lesion", "background"}
        ``"background"``: all that is not lesion within `margin_mm` of the lesion's box, so that
        the borders of no patch show it.
    seed : int
    margin_mm : float

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RobustnessError
        If the mask is empty or lies on another grid, or the region is not known.
    """
    if region not in REGIONS:
        raise RobustnessError(unknown("region", region, REGIONS))
    image, mask = _open(image, "the scan"), _open(mask, "the mask")
    same = image.GetSize() == mask.GetSize() and all(
        np.allclose(getattr(image, get)(), getattr(mask, get)(), atol=1e-3)
        for get in ("GetSpacing", "GetOrigin", "GetDirection")
    )
    if not same:
        raise RobustnessError(
            f"the mask lies on another grid than the scan ({mask.GetSize()} and {image.GetSize()} "
            "voxels, or another place); resample it with nearest neighbours first"
        )
    lesion = sitk.GetArrayFromImage(mask) > 0
    if not lesion.any():
        raise RobustnessError("the mask is empty: there is no lesion in it")
    box = []
    for axis, step in enumerate(image.GetSpacing()[::-1]):
        where = np.flatnonzero(lesion.any(axis=tuple(a for a in range(3) if a != axis)))
        reach = int(np.ceil(margin_mm / step)) if region == "background" else 0
        box.append(slice(max(where[0] - reach, 0), where[-1] + 1 + reach))
    array = sitk.GetArrayFromImage(image)
    part, chosen = array[tuple(box)], lesion[tuple(box)]
    chosen = chosen if region == "lesion" else ~chosen
    part[chosen] = np.random.default_rng(seed).permutation(part[chosen])
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result
