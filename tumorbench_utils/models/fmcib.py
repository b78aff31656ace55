"""FMCIB: a wide ResNet-50 trained by contrast on lesions."""

from tumorbench_utils.models.base import Published


class FMCIB(Published):
    """Trunk of the foundation model for cancer imaging biomarkers (Pai et al. 2024)."""

    key = "fmcib"

    def network(self, size: str):
        """Return the trunk: full ResNet-50 of double width, compact 16..64 planes."""
        from monai.networks.nets.resnet import ResNet
        from torch import nn

        full = size == "full"
        planes = [128, 256, 512, 1024] if full else [16, 32, 48, 64]
        options = {"n_input_channels": 1, "conv1_t_stride": 2, "feed_forward": False}
        trunk = ResNet("bottleneck", [3, 4, 6, 3] if full else [1, 2, 2, 1], planes, **options)
        if not full:
            trunk.fc = nn.Linear(4 * planes[-1], self.dim)
        return trunk
