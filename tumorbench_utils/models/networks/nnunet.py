"""The contracting path of an nnU-Net, as in PASTA."""

from collections import OrderedDict

from torch import Tensor, nn

from tumorbench_utils.models.networks.norms import normalise


class _Block(nn.Module):
    """Convolution, instance normalisation, leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.instnorm = nn.InstanceNorm3d(outputs, affine=True)
        self.lrelu = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lrelu(normalise(self.conv(x), self.instnorm))


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    """Return blocks in a row, the first of them strided."""
    row = [_Block(inputs, outputs, stride)]
    row += [_Block(outputs, outputs, 1) for _ in range(1, blocks)]
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*row)))


class ContextPath(nn.Module):
    """Contracting path of nnU-Net (Isensee et al. 2021, doi 10.1038/s41592-020-01008-z), pooled.

    Parameters
    ----------
    dim : int
        Length of an embedding. Where it is not the last width, a linear layer follows.
    widths : tuple of int
        Channels of the stages; the last is the bottleneck. Each but the first halves the patch.
    stride : int
        Stride of the first convolution.
    """

    def __init__(self, dim: int, widths=(64, 128, 256, 512, 1024, 1024), stride: int = 1):
        super().__init__()
        stages = []
        inputs = 1
        for level, width in enumerate(widths[:-1]):
            stages.append(_stage(inputs, width, 2 if level else stride, 2))
            inputs = width
        # The bottleneck is two stages of one block each: only the names tell.
        last = widths[-1]
        stages.append(nn.Sequential(_stage(inputs, last, 2, 1), _stage(last, last, 1, 1)))
        self.conv_blocks_context = nn.Sequential(*stages)
        self.head = nn.Linear(last, dim, bias=False) if last != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(self.conv_blocks_context(x).mean(dim=(2, 3, 4)))
