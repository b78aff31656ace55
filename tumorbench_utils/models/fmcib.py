"""FMCIB: a wide ResNet-50 trained by contrast on lesions."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec


class FMCIB(FoundationModel):
    """Trunk of the foundation model for cancer imaging biomarkers (Pai et al. 2024)."""

    key = "fmcib"
    spec = PatchSpec(orientation="SPL")
    dim = 4096
    containers = ("trunk_state_dict",)
    prefixes = ("", "model.trunk.", "trunk.")
    unused = ("fc.*", "*heads.*", "head_state_dict.*")
    card = ModelCard(
        title="FMCIB",
        paper="Pai S, Bontempi D, Hadzic I, et al. Foundation model for cancer imaging biomarkers. "
        "Nature Machine Intelligence 6:354-367",
        year=2024,
        doi="10.1038/s42256-024-00807-9",
        citation="pai2024fmcib",
        strategy="self-supervised contrastive learning between lesions and their surroundings",
        data="patches of 11,467 lesions of DeepLesion (CT)",
        licence="MIT (code); that of the weights is stated on their Zenodo page and was not seen",
        allows="anything the page of the weights does not forbid; the code may be used freely",
        access="open",
        source="https://zenodo.org/records/10528450",
        file="model_weights.torch",
        url="https://zenodo.org/records/10528450/files/model_weights.torch",
        native_input="SPL, 1 mm, 50 voxels, (HU + 1024) / 3072 cut off below 0 only",
        native_spec=PatchSpec("SPL", (1, 1, 1), (50, 50, 50), (-1024, 2048), (0, 1)),
        parameters=184_477_824,
    )

    def network(self, size: str) -> nn.Module:
        """Return the trunk: full ResNet-50 of double width, compact 16..64 planes."""
        from monai.networks.nets.resnet import ResNet

        if size == "full":
            planes, layers = (128, 256, 512, 1024), (3, 4, 6, 3)
        else:
            planes, layers = (16, 32, 48, 64), (1, 2, 2, 1)
        trunk = ResNet(
            "bottleneck",
            list(layers),
            list(planes),
            n_input_channels=1,
            conv1_t_stride=2,
            feed_forward=False,
        )
        if size == "compact":
            trunk.fc = nn.Linear(4 * planes[-1], self.dim)
        return trunk
