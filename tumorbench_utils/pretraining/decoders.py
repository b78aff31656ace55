"""The light decoder that supervised and restoring objectives need in training, and only there."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Parts of the compact networks whose output the decoder reads, beside the embedding.
MAPS = {
    "models_genesis": ("head",),
    "suprem": ("head",),
    "vista3d": ("layers.2.blocks", "layers.3.blocks"),
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
    """From the coarse maps of an encoder and its embedding to a grid of half or all voxels.

    There are no finer maps to copy from (no skip connections): what is drawn has gone through the
    encoder's last levels.

    Parameters
    ----------
    channels : list of int
        Of the maps.
    dim : int
        Length of the embedding, which is added everywhere: it says what holds for the whole patch.
    outputs : int
        Channels of the result.
    prompts : int
        Number of things that can be asked for; 0 if the decoder is not asked.
    fine : bool
        Whether the result has the voxels of the patch, not half as many a side.
    """

    def __init__(
        self, channels: list[int], dim: int, outputs: int, prompts: int = 0, fine: bool = False
    ):
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv3d(n, 48, 1) for n in channels)
        self.whole = nn.Linear(dim, 48)
        self.prompts = nn.Embedding(prompts, 48) if prompts else None
        steps = []
        for inputs, width in ((48, 32), (32, 16)):
            steps += [nn.ConvTranspose3d(inputs, width, 2, stride=2), nn.ReLU(inplace=True)]
            steps += [nn.Conv3d(width, width, 3, padding=1), nn.ReLU(inplace=True)]
        last = nn.ConvTranspose3d(16, outputs, 2, stride=2) if fine else nn.Conv3d(16, outputs, 1)
        self.steps = nn.Sequential(*steps, last)

    def forward(self, embedding: Tensor, maps: list[Tensor], asked: Tensor | None = None) -> Tensor:
        """Return (n, outputs, s, s, s) with s four (or eight) times the side of the finest map.

        Parameters
        ----------
        embedding : Tensor, shape (n, dim)
        maps : list of Tensor
            As :func:`with_maps` gives them, cubes, in any order of sizes.
        asked : Tensor of int, shape (n,), optional
            Which of the prompts.
        """
        side = max(m.shape[-1] for m in maps)
        x = self.whole(embedding)
        if self.prompts is not None:
            x = x + self.prompts(asked)
        x = x[:, :, None, None, None]
        for layer, part in zip(self.maps, maps, strict=True):
            part = layer(part)
            if part.shape[-1] != side:
                part = F.interpolate(part, size=(side,) * 3, mode="trilinear", align_corners=False)
            x = x + part
        return self.steps(torch.relu(x))
