"""Changed scans: what another protocol would have made of one, and controls with shuffled voxels.

For phantoms ``phantoms.render`` scans the same lesion again, which is the better experiment. These
functions do what can be done to a real scan, after it was made.
"""

import os

import numpy as np
import SimpleITK as sitk

from tumorbench_utils import checks
from tumorbench_utils.robustness.agreement import RobustnessError

#: Correlation of the noise of a CT in its plane: a Gaussian of this standard deviation, mm.
_GRAIN_MM = 0.5

#: How far around a lesion the background is shuffled; no patch of the ten models reaches further.
_MARGIN_MM = 45.0

#: Full width at half maximum of a Gaussian, in standard deviations.
_FWHM = 2 * np.sqrt(2 * np.log(2))


def _open(image) -> sitk.Image:
    return image if isinstance(image, sitk.Image) else sitk.ReadImage(os.fspath(image))


def perturb(
    image, *, kernel_mm=0, thickness_mm=0, slice_mm=None, noise_hu=0, hu_scale=1, hu_shift=0, seed=0
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
    slice_mm : float, optional
        Distance of the slices; linear resampling.
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
        If a width or the noise is below 0 or not a number.

    See Also
    --------
    SimpleITK.DiscreteGaussian, SimpleITK.Resample : Do the smoothing and the resampling.
    """
    image = _open(image)
    old = np.array(image.GetSpacing())
    # The file axis of the slices is the one that runs most from foot to head.
    across = int(np.abs(np.reshape(image.GetDirection(), (3, 3))[2]).argmax())
    in_plane = np.arange(3) != across
    blur = np.where(in_plane, kernel_mm, thickness_mm / _FWHM)
    new = np.where(in_plane | (slice_mm is None), old, slice_mm)
    if not (kernel_mm >= 0 and thickness_mm >= 0 and noise_hu >= 0):
        raise RobustnessError("kernel_mm, thickness_mm and noise_hu must be 0 or more")
    image = sitk.Cast(image, sitk.sitkFloat32)
    for axes in (in_plane, ~in_plane):
        image = _smooth(image, np.where(axes, blur, 0))
    if (new != old).any():
        size = np.floor((np.array(image.GetSize()) - 1) * old / new + 1e-6).astype(int) + 1
        grid = (image.GetOrigin(), new.tolist(), image.GetDirection())
        image = sitk.Resample(image, size.tolist(), sitk.Transform(), sitk.sitkLinear, *grid)
    if noise_hu > 0:
        shape = image.GetSize()[::-1]
        white = np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
        noise = _smooth(_like(white, image), np.where(in_plane, _GRAIN_MM, 0))
        image += noise * float(noise_hu / sitk.GetArrayViewFromImage(noise).std())
    image = sitk.Round(image * float(hu_scale) + float(hu_shift))
    return sitk.Clamp(image, sitk.sitkInt16, -1024, 3071)


def _smooth(image: sitk.Image, sd_mm: np.ndarray) -> sitk.Image:
    if not sd_mm.any():
        return image
    # The discrete kernel also holds for widths below a voxel, the recursive one does not.
    return sitk.DiscreteGaussian(
        image, (sd_mm**2).tolist(), maximumKernelWidth=64, maximumError=1e-4, useImageSpacing=True
    )


def _like(array: np.ndarray, image: sitk.Image) -> sitk.Image:
    result = sitk.GetImageFromArray(array)
    result.CopyInformation(image)
    return result


def shuffled(image, mask, region: str, *, seed: int = 0) -> sitk.Image:
    """Return a scan in which the voxels of a lesion, or those around it, have changed places.

    The values of a region stay the same as a set: its histogram is kept, its structure is not.

    Parameters
    ----------
    image : path-like or SimpleITK.Image
    mask : path-like or SimpleITK.Image
        On the grid of the image, above 0 in the lesion.
    region : {"lesion", "background"}
        ``"background"``: all that is not lesion within 45 mm of the lesion's box, so that the
        borders of no patch show it.
    seed : int

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RuntimeError
        By SimpleITK, if the mask lies on another grid.
    ValueError
        If the mask is empty or the region is not known.

    References
    ----------
    .. [1] Welch et al. (2019), Vulnerabilities of radiomic signature development: the need for
       safeguards. Radiother Oncol 130.
    """
    checks.one_of(region, "region", ("lesion", "background"))
    image, mask = _open(image), _open(mask)
    # Mask refuses another grid; where it lets the ones through, there is lesion.
    lesion = sitk.GetArrayFromImage(sitk.Mask(image * 0 + 1, mask > 0)) > 0
    reach = np.ceil(_MARGIN_MM / np.array(image.GetSpacing()[::-1])) * (region == "background")
    where, reach = np.argwhere(lesion), reach.astype(int)
    box = tuple(map(slice, np.maximum(where.min(0) - reach, 0), where.max(0) + 1 + reach))
    array = sitk.GetArrayFromImage(image)
    part, chosen = array[box], lesion[box] == (region == "lesion")
    part[chosen] = np.random.default_rng(seed).permutation(part[chosen])
    return _like(array, image)
