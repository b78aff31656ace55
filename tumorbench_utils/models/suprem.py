"""SuPreM: a U-Net that learned to segment abdominal organs."""

from tumorbench_utils.models.base import Published


class SuPreM(Published):
    """Encoder of the SuPreM U-Net (Li et al. 2024), averaged over space."""

    key = "suprem"

    def network(self, size: str):
        """Return the encoder: full 32..512 channels, compact 8..128 on a strided first layer."""
        from torch.nn import AdaptiveAvgPool3d

        from tumorbench_utils.models.networks.unet3d import UNet3DEncoder

        if size == "full":
            return UNet3DEncoder(AdaptiveAvgPool3d(1))
        return UNet3DEncoder(AdaptiveAvgPool3d(1), width=8, stride=2, features=self.dim)
