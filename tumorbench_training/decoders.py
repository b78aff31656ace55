"""The light decoder that supervised and restoring objectives need in training, and only there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Parts of the compact networks whose output the decoder reads, beside the embedding.
MAPS = {
    "models_genesis": ("head",),
    "suprem": ("down_tr128", "head"),
    "vista3d": ("layers.1.blocks", "layers.2.blocks", "layers.3.blocks"),
    "pasta": ("conv_blocks_context.2", "conv_blocks_context.3", "conv_blocks_context.4"),
}


def with_maps(module: nn.Module, x: Tensor, names: tuple[str, ...]) -> tuple[Tensor, list[Tensor]]:
    """Return the embeddings (n, dim) of patches and the outputs of some parts on the way."""
    kept: list[Tensor] = []
    hooks = [
        module.get_submodule(name).register_forward_hook(lambda part, args, out: kept.append(out))
        for name in names
    ]
    try:
        return module(x), kept
    finally:
        for hook in hooks:
            hook.remove()


class Decoder(nn.Module):
    """From the maps of an encoder and its embedding to a grid of half or all voxels.

    Parameters
    ----------
    shapes : list of (int, int)
        Channels and side of the maps. Those of an eighth of the patch and below are added up; one
        of a quarter joins in after the first step upwards.
    dim : int
        Length of the embedding, which is added everywhere: it says what holds for the whole patch.
    outputs : int
        Channels of the result.
    side : int
        Side of the patch.
    fine : bool
        Whether the result has the voxels of the patch, not half as many a side.
    """

    def __init__(
        self, shapes: list[tuple[int, int]], dim: int, outputs: int, side: int, fine: bool = False
    ):
        super().__init__()
        self.side = side // 8
        self.maps = nn.ModuleList(nn.Conv3d(n, 48, 1) for n, s in shapes if s <= self.side)
        self.whole = nn.Linear(dim, 48)
        steps = []
        for inputs, width in ((48, 32), (32, 16)):
            steps += [nn.ConvTranspose3d(inputs, width, 2, stride=2), nn.ReLU(inplace=True)]
            steps += [nn.Conv3d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        last = nn.ConvTranspose3d(16, outputs, 2, stride=2) if fine else nn.Conv3d(16, outputs, 1)
        self.steps = nn.Sequential(*steps, last)
        self.finer = nn.ModuleList(nn.Conv3d(n, 32, 1) for n, s in shapes if s > self.side)

    def forward(self, embedding: Tensor, maps: list[Tensor]) -> Tensor:
        """Return (n, outputs, s, s, s) with s half the side of the patch, or the side itself.

        Parameters
        ----------
        embedding : Tensor, shape (n, dim)
        maps : list of Tensor
            As :func:`with_maps` gives them, cubes.
        """
        x = self.whole(embedding)[:, :, None, None, None]
        coarse = [m for m in maps if m.shape[-1] <= self.side]
        for layer, part in zip(self.maps, coarse, strict=True):
            part = layer(part)
            if part.shape[-1] != self.side:
                part = F.interpolate(
                    part, size=(self.side,) * 3, mode="trilinear", align_corners=False
                )
            x = x + part
        x = self.steps[0](torch.relu(x))
        finer = [m for m in maps if m.shape[-1] > self.side]
        for layer, part in zip(self.finer, finer, strict=True):
            x = x + layer(part)
        return self.steps[1:](x)
