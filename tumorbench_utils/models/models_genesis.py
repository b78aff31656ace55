"""Models Genesis: a U-Net that learned to repair distorted chest CT."""

from tumorbench_utils.models.base import Published


class ModelsGenesis(Published):
    """Encoder of Models Genesis (Zhou et al. 2021); the embedding keeps eight positions."""

    key = "models_genesis"

    def network(self, size: str):
        """Return the encoder: full 32..512 channels, compact 8..128 on a strided first layer."""
        from torch.nn import AvgPool3d

        from tumorbench_utils.models.networks.unet3d import UNet3DEncoder

        # 6 x 6 x 6 -> 2 x 2 x 2: the last voxel of every axis is never pooled, as released.
        if size == "full":
            return UNet3DEncoder(AvgPool3d(3, stride=2))
        return UNet3DEncoder(AvgPool3d(3, stride=2), width=8, stride=2, features=self.dim // 8)
