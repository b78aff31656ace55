"""The Swin transformer of VoCo: MONAI's second version, with the patch merging of the release.

Hatamizadeh et al. 2022 (Swin UNETR, doi 10.1007/978-3-031-08999-2_22); He et al. 2023
(SwinUNETR-V2, doi 10.1007/978-3-031-43901-8_40) for the convolutions before each stage. Imported
where a network is built, since MONAI takes seconds to load.
"""

import torch
from monai.networks.nets.swin_unetr import SwinTransformer, WindowAttention
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

#: Parities (d, h, w) of the eight neighbours that the patch merging of MONAI before 1.5 joins. Two
#: come twice and two never; the released weights were trained with it.
LEGACY_ORDER = [tuple(map(int, n)) for n in "000 100 010 001 101 010 001 111".split()]


class _LegacyMerging(nn.Module):
    """Halve every axis and double the channels, neighbours in the order of the release."""

    def __init__(self, dim: int, norm_layer: type[nn.Module], spatial_dims: int):
        super().__init__()
        self.reduction = nn.Linear(8 * dim, 2 * dim, bias=False)
        self.norm = norm_layer(8 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, d, h, w, c), all sides even, to (n, d/2, h/2, w/2, 2c)."""
        parts = [x[:, i::2, j::2, k::2] for i, j, k in LEGACY_ORDER]
        return self.reduction(self.norm(torch.cat(parts, -1)))


class _RealLinspace(TorchFunctionMode):
    """Keep ``torch.linspace`` off the meta device: MONAI reads numbers from its result."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.linspace:
            kwargs["device"] = "cpu"
        return func(*args, **kwargs)


class SwinEncoder(SwinTransformer):
    """Four Swin stages whose last output, normalised over channels, is averaged over space.

    Parameters
    ----------
    width : int
        Channels of the first stage; every stage doubles them at its end.
    patch : int
        Side of the patches that become tokens, in voxels.
    window : int
        Side of the attention windows, in tokens.
    heads : tuple of int
        Attention heads per stage.
    features : int
        Length of the embedding after a linear layer. 0: ``16 * width`` channels.
    """

    def __init__(self, width: int, patch: int, window: int, heads: tuple, features: int = 0):
        with _RealLinspace():
            super().__init__(
                in_chans=1,
                embed_dim=width,
                window_size=(window,) * 3,
                patch_size=(patch,) * 3,
                depths=(2,) * len(heads),
                num_heads=heads,
                downsample=_LegacyMerging,
                use_v2=True,
            )
        for part in [p for p in self.modules() if isinstance(p, WindowAttention)]:
            # The fused attention of torch: the same numbers in less memory (MONAI 1.6 and later).
            part.use_flash_attention = True
            # A table of positions, not a weight: it is no part of the state dict.
            index = part.relative_position_index
            del part.relative_position_index
            part.register_buffer("relative_position_index", index, persistent=False)
        self.head = nn.Linear(16 * width, features) if features else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(super().forward(x)[-1].mean(dim=(2, 3, 4)))
