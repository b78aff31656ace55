"""Intensity, shape and texture of a lesion in plain numbers: a baseline without any network.

A small, fixed set in the spirit of radiomics (Aerts et al. 2014 [1]_; definitions of texture after
Haralick et al. 1973 [2]_). It is computed from the patch that the networks see, in HU on a 1 mm
grid, and needs no mask: the lesion is the region around the seed whose values lie nearer to the
centre than to the surroundings.

References
----------
.. [1] Aerts HJWL et al. (2014), Decoding tumour phenotype by noninvasive imaging using a
   quantitative radiomics approach. Nature Communications 5.
.. [2] Haralick RM, Shanmugam K, Dinstein I (1973), Textural features for image classification.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy import stats as sps

from tumorbench_utils.checks import InputError
from tumorbench_utils.cohorts import Cohort
from tumorbench_utils.patches import PatchSpec, extract_patches

#: Values in HU, 48 mm a side, 1 mm voxels.
SPEC = PatchSpec(window_hu=(-1024, 2048), out_range=(-1024, 2048))

#: Width of the grey levels of entropy and texture.
BIN_HU = 50

_CENTRE_MM = 3.0
_SHELL_MM = (18.0, 23.0)


def lesion_region(patch: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the region of a lesion around the middle of its patch.

    Centre and surroundings are the medians within 3 mm of the middle and between 18 and 23 mm. The
    region holds the voxels that, smoothed a little, lie nearer to the centre's value, hang together
    with the middle and are less than 23 mm from it.

    Parameters
    ----------
    patch : ndarray, shape (d, d, d)
        HU, 1 mm voxels, the lesion in the middle; at least 48 voxels a side.

    Returns
    -------
    region : ndarray of bool, shape (d, d, d)
    contrast : float
        Centre minus surroundings, HU.
    """
    middle = (np.array(patch.shape) - 1) / 2
    axes = np.ogrid[tuple(map(slice, patch.shape))]
    radius = np.sqrt(sum((axis - m) ** 2 for axis, m in zip(axes, middle, strict=True)))
    ball, shell = radius <= _CENTRE_MM, (radius >= _SHELL_MM[0]) & (radius <= _SHELL_MM[1])
    centre, around = float(np.median(patch[ball])), float(np.median(patch[shell]))
    smooth = ndimage.gaussian_filter(patch.astype(np.float64), 0.7)
    nearer = np.abs(smooth - centre) < np.abs(smooth - around)
    bodies, _ = ndimage.label((nearer | ball) & (radius < _SHELL_MM[1]))
    return bodies == bodies[tuple(middle.astype(int))], centre - around


def _texture(levels: np.ndarray, region: np.ndarray) -> dict[str, float]:
    """Contrast, homogeneity and correlation of neighbours along the three axes."""
    pairs = []
    for axis in range(3):
        ahead = [np.moveaxis(array, axis, 0) for array in (levels, region)]
        both = ahead[1][:-1] & ahead[1][1:]
        pairs.append([ahead[0][:-1][both], ahead[0][1:][both]])
    first, second = np.concatenate(pairs, axis=1).astype(float)
    # Haralick's matrix is symmetric: every pair counts both ways.
    a, b = np.concatenate([first, second]), np.concatenate([second, first])
    squares, variance = (a - b) ** 2, a.var()
    covariance = ((a - a.mean()) * (b - b.mean())).mean()
    return {
        "texture_contrast": squares.mean(),
        "texture_homogeneity": (1 / (1 + squares)).mean(),
        "texture_correlation": covariance / variance if variance > 0 else 1.0,
    }


def features(patch: np.ndarray) -> dict[str, float]:
    """Return the handcrafted features of one patch.

    Parameters
    ----------
    patch : ndarray, shape (d, d, d)
        HU on a 1 mm grid, at least 48 voxels a side, see :data:`SPEC`.

    Returns
    -------
    dict of str to float
        ``contrast_hu`` (centre minus surroundings); of the values in the region ``mean_hu, sd_hu,
        skewness, p10_hu, p90_hu, entropy_bits``; of its shape ``diameter_mm`` (of the sphere of
        equal volume), ``elongation`` and ``flatness`` (ratios of the principal axes, 1 for a
        sphere), ``roughness`` (faces over those of a voxelised sphere of equal volume, about 1 for
        a sphere); of its border ``edge_hu_per_mm`` (mean gradient); of neighbouring voxels
        ``texture_contrast, texture_homogeneity, texture_correlation``.

    Raises
    ------
    InputError
        If the patch is not cubic, too small or not finite.
    """
    patch = np.asarray(patch)
    if patch.shape != (max(48, *patch.shape, 0),) * 3 or not np.isfinite(patch).all():
        raise InputError(f"a patch is a cube of 48 voxels or more, finite; not {patch.shape}")
    region, contrast = lesion_region(patch)
    values = patch[region].astype(np.float64)
    levels = np.floor(patch / BIN_HU).astype(int)
    share = np.unique(levels[region], return_counts=True)[1] / len(values)
    places = np.argwhere(region).astype(float)
    # A voxel is a cube: 1/12 is the variance of its own width.
    lengths = np.sqrt(np.sort(np.linalg.eigvalsh(np.cov(places.T) + np.eye(3) / 12))[::-1])
    faces = sum(np.abs(np.diff(np.pad(region, 1).astype(int), axis=a)).sum() for a in range(3))
    # The faces of a voxelised sphere cover 3/2 of its surface.
    sphere = 1.5 * np.pi ** (1 / 3) * (6 * len(values)) ** (2 / 3)
    border = region & ~ndimage.binary_erosion(region)
    gradient = np.sqrt(sum(g**2 for g in np.gradient(patch.astype(np.float64))))
    spread = values.std()
    found = {"contrast_hu": contrast, "mean_hu": values.mean(), "sd_hu": spread}
    found["skewness"] = sps.skew(values) if spread > 1e-9 else 0.0
    found["p10_hu"], found["p90_hu"] = np.percentile(values, (10, 90))
    found["entropy_bits"] = -(share * np.log2(share)).sum()
    found["diameter_mm"] = (6 * len(values) / np.pi) ** (1 / 3)
    found["elongation"], found["flatness"] = lengths[1:] / lengths[0]
    found["roughness"], found["edge_hu_per_mm"] = faces / sphere, gradient[border].mean()
    return {name: float(value) for name, value in (found | _texture(levels, region)).items()}


class Handcrafted:
    """The features as if they were an encoder, for what embeds changed scans.

    Attributes
    ----------
    spec : PatchSpec
    dim : int
    """

    spec, dim = SPEC, 15

    def encode(self, module, patches):
        """Return the features of patches (n, 1, d, d, d) as a float32 tensor (n, dim).

        `module` is not used; columns stand in the order of :func:`features`.
        """
        import torch

        found = [list(features(patch[0].numpy()).values()) for patch in patches]
        return torch.tensor(found, dtype=torch.float32).reshape(-1, self.dim)


def cohort_features(cohort: Cohort) -> pd.DataFrame:
    """Return the handcrafted features of every lesion of a cohort whose images are there.

    Parameters
    ----------
    cohort : Cohort

    Returns
    -------
    DataFrame
        Index ``lesion_id`` in the order of ``cohort.table``, one column per feature.

    Raises
    ------
    PatchError
        If an image cannot be read or a seed does not fit it.
    """
    table = cohort.table.set_index("lesion_id")

    def of_scan(scan) -> pd.DataFrame:
        seeds = scan[1][["coord_x", "coord_y", "coord_z"]].to_numpy(dtype=float)
        cubes = extract_patches(scan[0], seeds, [SPEC])
        return pd.DataFrame([features(cube) for (cube,) in cubes], index=scan[1].index)

    with ThreadPoolExecutor(2) as pool:
        found = pd.concat(pool.map(of_scan, table.groupby("image_path", sort=False)))
    return found.loc[table.index]
