"""PASTA: the contracting path of an nnU-Net trained on synthetic tumours."""

from torch import Tensor, nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.norms import normalise
from tumorbench_utils.patches import PatchSpec


class _Block(nn.Module):
    """Convolution, instance normalisation, leaky rectifier."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=1)
        self.instnorm = nn.InstanceNorm3d(outputs, affine=True)
        self.lrelu = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lrelu(normalise(self.conv(x), self.instnorm))


class _Stage(nn.Module):
    """Blocks in a row, the first of them strided."""

    def __init__(self, inputs: int, outputs: int, stride: int, blocks: int):
        super().__init__()
        first = _Block(inputs, outputs, stride)
        self.blocks = nn.Sequential(first, *(_Block(outputs, outputs, 1) for _ in range(1, blocks)))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


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

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 1024),
        stride: int = 1,
    ):
        super().__init__()
        stages = []
        inputs = 1
        for level, width in enumerate(widths[:-1]):
            stages.append(_Stage(inputs, width, 2 if level else stride, 2))
            inputs = width
        # The bottleneck is two stages of one block each: only the names tell.
        last = widths[-1]
        stages.append(nn.Sequential(_Stage(inputs, last, 2, 1), _Stage(last, last, 1, 1)))
        self.conv_blocks_context = nn.Sequential(*stages)
        self.head = nn.Linear(last, dim, bias=False) if last != dim else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(self.conv_blocks_context(x).mean(dim=(2, 3, 4)))


class PASTA(FoundationModel):
    """Contracting path of PASTA (Lei et al. 2025), averaged over space.

    The last step before the average is an instance normalisation over 2 x 2 x 2 voxels, which
    removes the mean of every channel: what is left of it after the leaky rectifier differs little
    between channels and patches. The embeddings have a low contrast for that reason.
    """

    key = "pasta"
    spec = PatchSpec("LPS")
    dim = 1024
    prefixes = ("module.",)
    unused = ("*conv_blocks_localization.*", "*tu.*", "*seg_outputs.*", "*head*", "*classifier*")
    card = ModelCard(
        title="PASTA",
        paper="Lei W, Chen H, Zhang Z, et al. A data-efficient pan-tumor foundation model for "
        "oncology CT interpretation. arXiv 2502.06171",
        year=2025,
        doi="10.48550/arXiv.2502.06171",
        citation="lei2025pasta",
        strategy="segmentation of synthetic tumours, with structured reports",
        data="30,000 CT scans with synthetic lesions of ten organs, drawn into real scans",
        licence="MIT (code); no licence is stated for the weights",
        allows="the code may be used freely; ask the authors before passing the weights on",
        access="open",
        source="https://huggingface.co/surajpaib/PASTA-Model",
        file="PASTA final.pth",
        repo="surajpaib/PASTA-Model",
        native_input="LPS, 1 mm, sides a multiple of 32 voxels, a map of HU in three pieces: "
        "-1000, -200, 200, 1000 become 0, 0.2, 0.9, 1",
        native_spec=None,
        parameters=113_155_392,
    )

    def network(self, size: str) -> nn.Module:
        """Return the contracting path: full 64..1024 channels, compact 8..96 on half the grid."""
        if size == "full":
            return ContextPath(self.dim)
        return ContextPath(self.dim, widths=(8, 16, 32, 64, 96), stride=2)
