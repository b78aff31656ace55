"""Which voxels an embedding depends on, and how well that agrees with where the lesion is."""

import operator
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd
import SimpleITK as sitk
import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.transforms import GaussianSmooth
from scipy import ndimage

from tumorbench_utils import checks, stats
from tumorbench_utils.checks import InputError, numbers
from tumorbench_utils.patches import PatchSpec, extract_patch
from tumorbench_utils.patches.spec import AXIS_LETTERS

#: Occluded copies of a patch per forward pass: few, for memory grows with them, and blocks that are
#: larger than the allocator keeps are asked for again and again.
_BATCH = 2

#: Values of a map within this share of its maximum count as the maximum.
_TIE = 1e-4


class SaliencyError(InputError):
    """A patch, a mask or a map that saliency cannot be computed or scored for."""


require = partial(checks.require, error=SaliencyError)


def _seen(model, module, patch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a patch in which there is something to see, (1, 1, d0, d1, d2), and its embedding."""
    values = numbers(patch, "a patch", ndim=3, error=SaliencyError).astype(np.float32)
    require(values.size and np.ptp(values), "all voxels of the patch are equal: look at the seed")
    image = torch.from_numpy(values)[None, None]
    whole = model.encode(module, image)
    require(whole.any(), "the embedding of the patch is zero; it has no direction, no cosine")
    return image, whole


def _soft_cube(mask: int) -> torch.Tensor:
    """Return the factor (mask, mask, mask) of an occlusion: 0 in the middle, 1 far from it."""
    point = torch.zeros(1, mask, mask, mask)
    point[0, mask // 2, mask // 2, mask // 2] = 1
    bump = torch.as_tensor(GaussianSmooth(sigma=mask / 4)(point))[0]
    return (bump.max() - bump) / (bump.max() - bump.min()) if mask > 1 else torch.zeros(1, 1, 1)


@torch.no_grad()
def occlusion_map(
    model, module: torch.nn.Module, patch, *, mask: int = 12, overlap: float = 0.25
) -> np.ndarray:
    """Return how far the embedding moves when a soft cube around each voxel is occluded.

    As published, and as ``monai.visualize.OcclusionSensitivity`` computes it: a cube of `mask`
    voxels is multiplied by one minus a Gaussian bump, wherever sliding windows of that size and
    `overlap` stand; the embeddings of the windows that cover a voxel are averaged with Gaussian
    weights; the map is one minus the cosine of that average with the embedding of the whole patch.
    The average is never formed: its cosine follows from the inner products of the windows'
    embeddings, so the cost is one forward pass per window and the memory that of one batch.

    Parameters
    ----------
    model : FoundationModel
        Its ``encode`` runs `module`; embeddings do not depend on batch mates.
    module : torch.nn.Module
        As made by ``model.build``.
    patch : array-like, shape (d0, d1, d2)
        As ``patches.extract_patch`` gives it for ``model.spec``. Occluded voxels tend to 0: air
        for networks with inputs 0..1, about water for those with -1..1.
    mask : int
        Side of the cube in voxels.
    overlap : float
        Share of a window that the next one covers again, 0 <= overlap < 1.

    Returns
    -------
    ndarray of float32, shape (d0, d1, d2)
        Cosine distance, 0 to 2, on the grid of the patch; higher: the embedding depends more on
        the surroundings of this voxel.

    Raises
    ------
    SaliencyError
        If the patch is constant, not finite or not 3-D, the mask does not fit into it, or an
        embedding is zero and has no direction.
    ValueError
        If the patch has not the shape or the range of ``model.spec``.

    References
    ----------
    .. [1] Zeiler MD, Fergus R (2014), Visualizing and understanding convolutional networks.

    See Also
    --------
    captum.attr.Occlusion : Occlusion of a single output.
    monai.visualize.OcclusionSensitivity : The published one, an embedding per voxel.
    """
    mask, (image, whole) = operator.index(mask), _seen(model, module, patch)
    shape = tuple(image.shape[2:])
    if not (1 <= mask <= min(shape) and 0 <= overlap < 1):
        raise SaliencyError(f"mask {mask} must fit into {shape}, and 0 <= overlap {overlap} < 1")
    windows = dense_patch_slices(shape, (mask,) * 3, (max(1, int(mask * (1 - overlap))),) * 3)
    keep, embeddings = _soft_cube(mask), torch.empty(len(windows), whole.shape[1])
    for start in range(0, len(windows), _BATCH):
        few = windows[start : start + _BATCH]
        batch = image.repeat(len(few), 1, 1, 1, 1)
        for occluded, window in zip(batch, few, strict=True):
            occluded[(slice(None), *window)] *= keep
        embeddings[start : start + _BATCH] = model.encode(module, batch)
    weight = compute_importance_map((mask,) * 3, mode="gaussian").numpy().astype(np.float64)
    return _distance(shape, windows, weight, embeddings.double(), whole.double()[0])


def _distance(shape, windows, weight, embeddings, whole) -> np.ndarray:
    """Return one minus the cosine of the weighted mean of windows' embeddings with the whole's."""
    gram = (embeddings @ embeddings.T).numpy()
    along = (embeddings @ whole / whole.norm()).numpy()
    numerator, squared = np.zeros(shape), np.zeros(shape)
    corners = np.array([[side.start for side in window] for window in windows])
    for k, window in enumerate(windows):
        numerator[window] += weight * along[k]
        squared[window] += weight**2 * gram[k, k]
        # The square of a sum: each pair of windows counts twice where both cover a voxel.
        touching = (np.abs(corners[k + 1 :] - corners[k]) < len(weight)).all(axis=1)
        for m in k + 1 + np.flatnonzero(touching):
            low, high = np.maximum(corners[k], corners[m]), np.minimum(corners[k], corners[m])
            high += len(weight)
            first, second = (weight[_box(low - c, high - c)] for c in (corners[k], corners[m]))
            squared[_box(low, high)] += 2 * gram[k, m] * first * second
    # The squared norm of an average of nearly opposite embeddings may round to just below zero.
    norm = np.sqrt(np.maximum(squared, np.finfo(np.float64).tiny))
    return (1 - np.clip(numerator / norm, -1, 1)).astype(np.float32)


def _box(low: np.ndarray, high: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(a, b) for a, b in zip(low, high, strict=True))


def gradient_map(
    model, module: torch.nn.Module, patch, *, projections: int = 8, seed: int = 0
) -> np.ndarray:
    """Return how fast the direction of the embedding turns when single voxels change.

    The norm of the derivative of the embedding, scaled to unit length, by each voxel (saliency of
    Simonyan et al. 2014, for all outputs at once). It is estimated with captum: the derivative of
    a random projection of the embedding has this norm as its root mean square (Hutchinson 1990).

    Parameters
    ----------
    model : FoundationModel
    module : torch.nn.Module
        As made by ``model.build``, in evaluation mode.
    patch : array-like, shape (d0, d1, d2)
        As ``patches.extract_patch`` gives it for ``model.spec``.
    projections : int
        Random projections, each a forward and a backward pass.
    seed : int

    Returns
    -------
    ndarray of float32, shape (d0, d1, d2)
        Not negative; change of the embedding, in radians, per unit of a voxel's value. Codebooks
        (CT-CLIP) let the gradient pass as if they were not there.

    Raises
    ------
    SaliencyError
        If :func:`occlusion_map` would refuse the patch, the network is in training mode, or no
        gradient reaches the patch because the network rounds its input (MedImageInsight).

    References
    ----------
    .. [1] Simonyan K, Vedaldi A, Zisserman A (2014), Deep inside convolutional networks.
    .. [2] Hutchinson MF (1990), A stochastic estimator of the trace of the influence matrix.

    See Also
    --------
    captum.attr.Saliency : The derivative of one output, which this is made of.
    """
    from captum.attr import Saliency

    if any(layer.training for layer in module.modules()):
        raise SaliencyError("the network is in training mode; call module.eval() first")
    image, _ = _seen(model, module, patch)
    image = image.to(next((p.device for p in module.parameters()), image.device)).requires_grad_()
    generator = torch.Generator().manual_seed(seed)
    squares = torch.zeros_like(image)
    for _ in range(projections):
        direction = torch.randn(model.dim, generator=generator).to(image.device)

        def projected(images: torch.Tensor, direction=direction) -> torch.Tensor:
            return torch.nn.functional.normalize(module(images), dim=1) @ direction

        try:
            squares += Saliency(projected).attribute(image, abs=False).detach() ** 2
        except RuntimeError as error:
            if "grad" not in str(error) and "have been used in the graph" not in str(error):
                raise
            break
    reason = "no projections, or the network rounds its input; use occlusion_map"
    require(squares.any(), f"no gradient reaches the patch of {model.key}: {reason}")
    return (squares / projections).sqrt()[0, 0].cpu().numpy()


def lesion_on_patch(mask, seed_lps_mm: Sequence[float], spec: PatchSpec) -> np.ndarray:
    """Return the mask of a lesion on the grid of a patch.

    Parameters
    ----------
    mask : path-like or SimpleITK.Image
        Above 0 inside the lesion; on the grid of its scan, so that the patch's grid is the same.
    seed_lps_mm : sequence of 3 floats
        Where the patch was cut, LPS mm.
    spec : PatchSpec
        What the patch was cut with.

    Returns
    -------
    ndarray of bool, shape `spec.size`
        Axes as in ``spec.orientation``; a voxel that is interpolated at least half from the lesion.

    Raises
    ------
    PatchError
        As ``patches.extract_patch``.
    SaliencyError
        If no voxel of the lesion lies on the patch.
    """
    image = mask if isinstance(mask, sitk.Image) else sitk.ReadImage(str(mask))
    # Dressed up as HU: 20 outside, 520 inside, and beyond the border of the scan 0 as always.
    image = sitk.Cast(image > 0, sitk.sitkInt16) * 500 + 20
    window = PatchSpec(spec.orientation, spec.spacing_mm, spec.size, (20, 520), (0, 1))
    lesion = extract_patch(image, seed_lps_mm, window) >= 0.5
    require(lesion.any(), f"no voxel of the lesion lies on the patch around {seed_lps_mm!r}")
    return lesion


def to_ras(array: np.ndarray, orientation: str) -> np.ndarray:
    """Return a patch or a map of it with axes that run right, front, head: one view for all models.

    Parameters
    ----------
    array : ndarray, shape (d0, d1, d2)
    orientation : str
        ``spec.orientation`` of the patch.
    """
    axes, signs = zip(*(AXIS_LETTERS[letter] for letter in orientation), strict=True)
    flipped = np.asarray(array)[tuple(slice(None, None, sign) for sign in signs)]
    return flipped.transpose(np.argsort(axes))


def score(saliency, lesion, *, spacing_mm=(1.0, 1.0, 1.0)) -> pd.Series:
    """Score a saliency map against the true mask of the lesion.

    Parameters
    ----------
    saliency : array-like, shape (d0, d1, d2)
        Not negative; higher is more salient.
    lesion : array-like of bool, shape (d0, d1, d2)
        True mask on the same grid; some voxels inside, some outside.
    spacing_mm : tuple of float
        Size of a voxel along each axis.

    Returns
    -------
    Series
        ``energy``: share of the map's sum inside the lesion (energy-based pointing game, Wang et
        al. 2020); ``volume_share``: what a flat map would reach; ``pointing``: 1 if the maximum
        lies inside (Zhang et al. 2018); ``auc``: of the map for lesion against other voxels;
        ``mirror_auc``: against the voxels on the other side of the patch's middle, which are as
        far from it, so that a map of the middle has 0.5 (nan where these are lesion, too);
        ``distance_mm``: from the maximum to the lesion's border, negative inside. Where several
        voxels hold the maximum (windows of an occlusion), pointing and distance are their mean.

    Raises
    ------
    SaliencyError
        If shapes differ, the lesion is empty or fills the patch, or the map is negative, not
        finite or all zero.
    """
    saliency = numbers(saliency, "a map", ndim=3, error=SaliencyError)
    lesion = numbers(lesion, "a lesion mask", ndim=3, error=SaliencyError) != 0
    require(saliency.shape == lesion.shape, f"no common grid: {saliency.shape}, {lesion.shape}")
    require(0 < lesion.mean() < 1, "the lesion is empty or fills the patch; no map can be scored")
    require(
        saliency.min() >= 0 and saliency.any(), "a saliency map is not negative and not all zero"
    )
    peak = saliency >= (1 - _TIE) * saliency.max()
    outside = ndimage.distance_transform_edt(~lesion, sampling=spacing_mm)
    within = ndimage.distance_transform_edt(lesion, sampling=spacing_mm)
    sides = lesion != np.flip(lesion)
    truth, single = lesion.astype(int), not sides.any()
    found = {
        "energy": saliency[lesion].sum() / saliency.sum(),
        "volume_share": lesion.mean(),
        "pointing": lesion[peak].mean(),
        "auc": stats.auc(truth.ravel(), saliency.ravel()),
        "mirror_auc": np.nan if single else stats.auc(truth[sides], saliency[sides]),
        "distance_mm": (outside - within)[peak].mean(),
    }
    return pd.Series(found)
