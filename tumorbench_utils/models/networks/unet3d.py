"""The contracting path of a 3D U-Net, shared by Models Genesis and SuPreM.

Çiçek et al. 2016 (doi 10.1007/978-3-319-46723-8_49) in the form of Zhou et al. 2021 (Models
Genesis, doi 10.1016/j.media.2020.101840): two convolutions a level, the second of which doubles
the channels.
"""

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumorbench_utils.models.networks.norms import normalise


class SampleNorm3d(nn.BatchNorm3d):
    """Batch normalisation as these networks run it, made independent of the batch.

    The released code normalises with the statistics of the batch in evaluation too. With one
    sample in the batch these are the statistics of the sample over space. They are taken here for
    every sample, so that a patch's embedding is what the benchmark got with batches of one. The
    running statistics are kept for their names in the checkpoint; nothing reads them.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise every sample and channel over space (biased variance)."""
        return normalise(x, self)


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.bn1 = SampleNorm3d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


def _level(inputs: int, width: int, stride: int) -> nn.Sequential:
    steps = _Convolution(inputs, width, stride), _Convolution(width, 2 * width)
    return nn.Sequential(OrderedDict(ops=nn.Sequential(*steps)))


def halve(x: Tensor) -> Tensor:
    """Return maxima over blocks of 2 x 2 x 2: ``F.max_pool3d``, several times as fast."""
    for axis in (2, 3, 4):
        half = x.shape[axis] // 2
        pairs = x.narrow(axis, 0, 2 * half).unflatten(axis, (half, 2))
        x = torch.maximum(pairs.select(axis + 1, 0), pairs.select(axis + 1, 1))
    return x


class UNet3DEncoder(nn.Module):
    """Four levels of two convolutions with 2 x 2 x 2 maxima between them.

    Parameters
    ----------
    width : int
        Channels of the first convolution; every level doubles them twice over its two steps.
    stride : {1, 2}
        Stride of the first convolution (1 as released). With 2 the last level is not preceded by
        a maximum, so that its grid is an eighth of the patch's either way.
    pool : nn.Module
        Applied to the last level's maps (n, channels, d0, d1, d2); the result is flattened.
    features : int
        Channels after a pointwise convolution behind the last level. 0: no such convolution.
    """

    def __init__(self, pool: nn.Module, width: int = 32, stride: int = 1, features: int = 0):
        super().__init__()
        inputs = 1
        # The names count the channels of the released width; narrower ones keep them.
        for level, name in enumerate(("tr64", "tr128", "tr256", "tr512")):
            outputs = width * 2**level
            self.add_module(f"down_{name}", _level(inputs, outputs, stride if level == 0 else 1))
            inputs = 2 * outputs
        self.halvings = 4 - stride
        self.head = nn.Conv3d(inputs, features, 1) if features else nn.Identity()
        self.pool = nn.Sequential(pool, nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        levels = [part for name, part in self.named_children() if name.startswith("down_")]
        for level, part in enumerate(levels):
            x = part(halve(x) if 0 < level <= self.halvings else x)
        return self.pool(self.head(x))
