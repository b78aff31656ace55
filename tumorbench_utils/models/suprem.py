"""SuPreM: a U-Net that learned to segment abdominal organs."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.unet3d import UNet3DEncoder
from tumorbench_utils.patches import PatchSpec


class SuPreM(FoundationModel):
    """Encoder of the SuPreM U-Net (Li et al. 2024), averaged over space."""

    key = "suprem"
    spec = PatchSpec(orientation="RAS")
    dim = 512
    containers = ("net",)
    prefixes = ("module.backbone.",)
    unused = (
        "*up_tr*",
        "*out_tr*",
        "*organ_embedding*",
        "*controller*",
        "*GAP*",
        "*precls_conv*",
        "*text_to_vision*",
    )
    optional = ("*num_batches_tracked", "*running_mean", "*running_var")
    card = ModelCard(
        title="SuPreM",
        paper="Li W, Yuille A, Zhou Z. How well do supervised models transfer to 3D image "
        "segmentation? International Conference on Learning Representations",
        year=2024,
        doi=None,
        citation="li2024suprem",
        strategy="supervised segmentation of organs",
        data="2,100 abdominal CT scans of AbdomenAtlas with voxel-wise organ labels (the number is "
        "that in the name of the file)",
        licence="CC BY-NC-ND 4.0 (Johns Hopkins University), the licence of the repository",
        allows="research and teaching with attribution; no commercial use; changed weights may "
        "not be passed on",
        access="open",
        source="https://huggingface.co/MrGiovanni/SuPreM",
        file="supervised_suprem_unet_2100.pth",
        repo="MrGiovanni/SuPreM",
        native_input="RAS, 1.5 mm, 96 voxels, -175..250 HU scaled to 0..1",
        native_spec=PatchSpec("RAS", (1.5, 1.5, 1.5), (96, 96, 96), (-175, 250), (0, 1)),
        parameters=7_027_776,
    )

    def network(self, size: str) -> nn.Module:
        """Return the encoder: full 32..512 channels, compact 8..128 on a strided first layer."""
        pool = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())
        if size == "full":
            return UNet3DEncoder(pool)
        return UNet3DEncoder(pool, width=8, stride=2, features=self.dim)
