"""Models Genesis: a U-Net that learned to repair distorted chest CT."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.models.unet3d import UNet3DEncoder
from tumorbench_utils.patches import PatchSpec


class ModelsGenesis(FoundationModel):
    """Encoder of Models Genesis (Zhou et al. 2021); the embedding keeps eight positions."""

    key = "models_genesis"
    spec = PatchSpec(orientation="RAS")
    dim = 4096
    prefixes = ("module.",)
    unused = ("*up_tr*", "*out_tr*")
    optional = ("*num_batches_tracked", "*running_mean", "*running_var")
    card = ModelCard(
        title="Models Genesis",
        paper="Zhou Z, Sodha V, Pang J, Gotway MB, Liang J. Models Genesis. Medical Image Analysis "
        "67:101840",
        year=2021,
        doi="10.1016/j.media.2020.101840",
        citation="zhou2021genesis",
        strategy="self-supervised restoration: undo non-linear intensity changes, local shuffling, "
        "and painted-over regions",
        data="623 chest CT scans of LUNA16 (part of LIDC-IDRI)",
        licence="licence of Arizona State University in the repository: non-commercial use only, "
        "patent pending",
        allows="research and teaching; no commercial use",
        access="open",
        source="https://huggingface.co/MrGiovanni/ModelsGenesis",
        file="Genesis_Chest_CT.pt",
        repo="MrGiovanni/ModelsGenesis",
        native_input="crops of 64 x 64 x 32 voxels, -1000..1000 HU scaled to 0..1, axes LPS; the "
        "voxel size is not stated. A crop of that shape gives embeddings of another length, so no "
        "single specification says it",
        native_spec=None,
        parameters=7_027_776,
    )

    def network(self, size: str) -> nn.Module:
        """Return the encoder: full 32..512 channels, compact 8..128 on a strided first layer."""
        # 6 x 6 x 6 -> 2 x 2 x 2: the last voxel of every axis is never pooled, as released.
        pool = nn.Sequential(nn.AvgPool3d(3, stride=2), nn.Flatten())
        if size == "full":
            return UNet3DEncoder(pool)
        return UNet3DEncoder(pool, width=8, stride=2, features=self.dim // 8)
