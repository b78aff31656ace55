"""PASTA: the contracting path of an nnU-Net trained on synthetic tumours."""

from tumorbench_utils.models.base import Published


class PASTA(Published):
    """Contracting path of PASTA (Lei et al. 2025), averaged over space.

    The last step before the average is an instance normalisation over 2 x 2 x 2 voxels, which
    removes the mean of every channel: what is left of it after the leaky rectifier differs little
    between channels and patches. The embeddings have a low contrast for that reason.
    """

    key = "pasta"

    def network(self, size: str):
        """Return the contracting path: full 64..1024 channels, compact 8..96 on half the grid."""
        from tumorbench_utils.models.networks.nnunet import ContextPath

        if size == "full":
            return ContextPath(self.dim)
        return ContextPath(self.dim, widths=(8, 16, 32, 64, 96), stride=2)
