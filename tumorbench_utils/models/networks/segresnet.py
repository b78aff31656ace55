"""The residual encoder shared by CT-FM and VISTA3D: MONAI's, averaged over space.

Myronenko 2018 (doi 10.1007/978-3-030-11726-9_28). Imported where a network is built, since MONAI
takes seconds to load and cards are read without it.
"""

from monai.networks.nets.segresnet_ds import SegResEncoder
from torch import Tensor, nn


class SegResNetEncoder(SegResEncoder):
    """A SegResNet encoder whose forward pass gives embeddings.

    Parameters
    ----------
    width : int
        Channels of the first level; each further level doubles them.
    blocks : tuple of int
        Residual blocks per level.
    norm : {"batch", "instance"}
    stride : int
        Stride of the first convolution (1 as released).
    features : int
        Length of the embedding after a linear layer. 0: the channels of the last level.
    """

    def __init__(self, width: int, blocks: tuple, norm: str, stride: int = 1, features: int = 0):
        super().__init__(init_filters=width, blocks_down=blocks, norm=norm)
        if stride != 1:
            self.conv_init = nn.Conv3d(1, width, 3, stride=stride, padding=1, bias=False)
        channels = width * 2 ** (len(blocks) - 1)
        self.head = nn.Linear(channels, features) if features else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(super().forward(x)[-1].mean(dim=(2, 3, 4)))
