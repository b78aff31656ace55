"""VoCo: a Swin transformer trained to tell where a crop lies in the body."""

from tumorbench_utils.models.base import Published


class VoCo(Published):
    """Swin encoder of VoCo-H (Wu et al. 2024), averaged over space."""

    key = "voco"

    def network(self, size: str):
        """Return the encoder alone: full 192 channels, compact 12 with larger steps."""
        from tumorbench_utils.models.networks.swin import SwinEncoder

        if size == "full":
            return SwinEncoder(192, patch=2, window=7, heads=(3, 6, 12, 24))
        return SwinEncoder(12, patch=4, window=4, heads=(1, 2, 4, 8), features=self.dim)
