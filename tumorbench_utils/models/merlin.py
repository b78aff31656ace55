"""Merlin: a ResNet-152 inflated to 3D, aligned with abdominal radiology reports and diagnoses."""

from tumorbench_utils.models.base import Published


class Merlin(Published):
    """Image tower of Merlin (Blankemeier et al. 2024) with its contrastive head.

    The embedding is the vector that was aligned with the reports, of length one; it is not the
    pooled feature before the head. The text tower is not built.
    """

    key = "merlin"

    def network(self, size: str):
        """Return the image tower: full ResNet-152, compact 12..64 planes and six bottlenecks."""
        from tumorbench_utils.models.networks.resnet import InflatedResNet

        if size == "full":
            return InflatedResNet(self.dim)
        return InflatedResNet(self.dim, blocks=(1, 2, 2, 1), planes=(12, 24, 48, 64))
