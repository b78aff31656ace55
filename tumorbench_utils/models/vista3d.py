"""VISTA3D: the image encoder of a promptable segmentation model."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec


class VISTA3D(FoundationModel):
    """Image encoder of VISTA3D (He et al. 2024), averaged over space."""

    key = "vista3d"
    spec = PatchSpec(orientation="RAS")
    dim = 768
    prefixes = ("image_encoder.encoder.",)
    unused = ("*image_encoder.up_layers*", "*point_head.*", "*class_head.*")
    card = ModelCard(
        title="VISTA3D",
        paper="He Y, Guo P, Tang Y, et al. VISTA3D: a unified segmentation foundation model for 3D "
        "medical imaging. arXiv:2406.05285",
        year=2024,
        doi="10.48550/arXiv.2406.05285",
        citation="he2024vista3d",
        strategy="supervised segmentation, prompted by class or by points",
        data="11,454 CT volumes with 127 labelled classes",
        licence="of NVIDIA, not stated with the file; as far as known non-commercial; read it on "
        "the page",
        allows="not certain before the licence is read; as far as known research and teaching",
        access="open",
        source="https://github.com/Project-MONAI/VISTA/tree/main/vista3d",
        file="model_vista3d.pt",
        url="https://developer.download.nvidia.com/assets/Clara/monai/tutorials/model_zoo/"
        "model_vista3d.pt",
        native_input="RAS, 1.5 mm, 128 voxels, about -964..1054 HU scaled to 0..1",
        native_spec=PatchSpec("RAS", (1.5, 1.5, 1.5), (128, 128, 128), (-963.8, 1053.7), (0, 1)),
        parameters=174_951_120,
    )

    def network(self, size: str) -> nn.Module:
        """Return the encoder: full 48..768 channels, compact 8..64 on a strided first layer."""
        from tumorbench_utils.models.segresnet import SegResNetEncoder

        if size == "full":
            return SegResNetEncoder(48, (1, 2, 2, 4, 4), "instance")
        return SegResNetEncoder(8, (1, 1, 2, 4), "instance", stride=2, features=self.dim)
