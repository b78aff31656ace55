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
    # Centred twice, because a mean in float32 is rounded too. (torch.var_mean needs no second time,
    # and takes three times as long.)
    space = (2, 3, 4)
    centred = x - x.mean(dim=space, keepdim=True)
    centred -= centred.mean(dim=space, keepdim=True)
    norms = torch.linalg.vector_norm(centred, dim=space, keepdim=True)
    shape = (1, -1, 1, 1, 1)
    variance = norms**2 / x[0, 0].numel()
    scale = torch.rsqrt(variance + norm.eps) * norm.weight.view(shape)
    result = centred * scale
    result += norm.bias.view(shape)
    return result
