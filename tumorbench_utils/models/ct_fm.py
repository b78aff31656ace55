"""CT-FM: a residual encoder trained by contrast on whole-body CT."""

from tumorbench_utils.models.base import Published


class CTFM(Published):
    """Encoder of CT-FM (Pai et al. 2025), averaged over space."""

    key = "ct_fm"

    def network(self, size: str):
        """Return the encoder: full 32..512 channels, compact 8..64 on a strided first layer."""
        from tumorbench_utils.models.networks.segresnet import SegResNetEncoder

        if size == "full":
            return SegResNetEncoder(32, (1, 2, 2, 4, 4), "batch")
        return SegResNetEncoder(8, (1, 1, 2, 4), "batch", stride=2, features=self.dim)
