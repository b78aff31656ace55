"""VISTA3D: the image encoder of a promptable segmentation model."""

from tumorbench_utils.models.base import Published


class VISTA3D(Published):
    """Image encoder of VISTA3D (He et al. 2024), averaged over space."""

    key = "vista3d"

    def network(self, size: str):
        """Return the encoder: full 48..768 channels, compact 8..64 on a strided first layer."""
        from tumorbench_utils.models.networks.segresnet import SegResNetEncoder

        if size == "full":
            return SegResNetEncoder(48, (1, 2, 2, 4, 4), "instance")
        return SegResNetEncoder(8, (1, 1, 2, 4), "instance", stride=2, features=self.dim)
