"""Normalisation of a sample over space, for networks whose embeddings must not hang on rounding."""

import torch
from torch import Tensor, nn


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    """Return `x` with mean 0 and variance 1 for every sample and channel, scaled and shifted.

    Parameters
    ----------
    x : Tensor, shape (n, channels, d0, d1, d2)
    norm : torch.nn.Module
        An instance or batch normalisation: its ``weight``, ``bias`` and ``eps`` are taken.
    """
    # Centred before it is scaled: F.instance_norm does both at once, and on a patch without
    # contrast the rounding of that, multiplied by 1 / sqrt(eps) in every layer, takes over.
    variance, mean = torch.var_mean(x, dim=(2, 3, 4), correction=0, keepdim=True)
    shape = (1, -1, 1, 1, 1)
    scale = torch.rsqrt(variance + norm.eps) * norm.weight.view(shape)
    return torch.addcmul(norm.bias.view(shape), x - mean, scale)
