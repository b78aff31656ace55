"""Random changes of patches: the views of contrastive learning, the damage of Models Genesis.

All are MONAI transforms on arrays (1, d0, d1, d2), so that a chapter can put others in their place.
"""

import numpy as np
import torch
from monai.transforms import (
    Compose,
    OneOf,
    RandCoarseDropout,
    RandCoarseShuffle,
    RandFlip,
    RandGaussianNoise,
    RandHistogramShift,
    RandScaleIntensity,
    RandShiftIntensity,
)


def _flips() -> list:
    return [RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)]


def lesion_views() -> Compose:
    """Return the changes between two views of a lesion: mirrored, noise, other grey values.

    After Pai et al. 2024 (FMCIB): the histogram is bent, so that absolute attenuation says little.
    """
    return Compose(
        [
            *_flips(),
            RandHistogramShift(num_control_points=(6, 10), prob=0.5),
            RandGaussianNoise(prob=0.8, std=0.015),
        ]
    )


def scan_views() -> Compose:
    """Return the changes between two views of a place in a scan: mirrored, noise, brightness."""
    return Compose(
        [
            *_flips(),
            RandScaleIntensity(factors=0.05, prob=0.8),
            RandShiftIntensity(offsets=0.02, prob=0.8),
            RandGaussianNoise(prob=0.8, std=0.01),
        ]
    )


def damage() -> Compose:
    """Return the damage that Models Genesis undoes (Zhou et al. 2021), with MONAI's transforms.

    Grey values are bent by a monotone curve (the paper's is a Bezier curve), voxels shuffled in
    small windows, and windows, or all but windows, are painted over with one random value.
    """
    windows = {"holes": 4, "spatial_size": 8, "max_holes": 6, "max_spatial_size": 16, "prob": 1}
    inside = {"holes": 1, "spatial_size": 24, "max_holes": 2, "max_spatial_size": 36, "prob": 1}
    return Compose(
        [
            RandHistogramShift(num_control_points=(6, 10), prob=0.8),
            RandCoarseShuffle(holes=10, spatial_size=4, max_holes=30, max_spatial_size=8, prob=0.5),
            OneOf(
                [
                    RandCoarseDropout(**windows),
                    RandCoarseDropout(dropout_holes=False, **inside),
                    Compose([]),
                ],
                weights=(0.45, 0.35, 0.2),
            ),
        ]
    )


def changed(patches: torch.Tensor, change: Compose, rng: np.random.Generator) -> torch.Tensor:
    """Return patches (n, 1, d0, d1, d2), each changed at random, cut to the range they came in."""
    change.set_random_state(seed=int(rng.integers(2**31)))
    low, high = float(patches.min()), float(patches.max())
    views = [torch.as_tensor(np.asarray(change(patch.numpy().copy()))) for patch in patches]
    return torch.stack(views).clamp(low, high)
