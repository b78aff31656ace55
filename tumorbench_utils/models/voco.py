"""VoCo: a Swin transformer trained to tell where a crop lies in the body."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec


class VoCo(FoundationModel):
    """Swin encoder of VoCo-H (Wu et al. 2024), averaged over space."""

    key = "voco"
    spec = PatchSpec(orientation="RAS", size=(64, 64, 64))
    dim = 3072
    prefixes = ("swinViT.", "backbone.swinViT.", "backbone.", "swin_vit.", "backbone.swin_vit.")
    unused = (
        "*relative_position_index",
        "*encoder[0-9]*",
        "*decoder*",
        "*out.*",
        "*student.*",
        "*teacher.*",
    )
    card = ModelCard(
        title="VoCo",
        paper="Wu L, Zhuang J, Chen H. Large-scale 3D medical image pre-training with geometric "
        "context priors. arXiv:2410.09890",
        year=2024,
        doi="10.48550/arXiv.2410.09890",
        citation="wu2024voco",
        strategy="self-supervised: predict how much a crop overlaps with each of several base "
        "crops of the same volume",
        data="about 160,000 CT volumes (PreCT-160K)",
        licence="Apache-2.0",
        allows="any use, with the licence and notices kept",
        access="open",
        source="https://huggingface.co/Luffy503/VoCo",
        file="VoCo_H_SSL_head.pt",
        repo="Luffy503/VoCo",
        native_input="RAS, 1.5 mm, 64 voxels, -175..250 HU scaled to 0..1",
        native_spec=PatchSpec("RAS", (1.5, 1.5, 1.5), (64, 64, 64), (-175, 250), (0, 1)),
        parameters=294_863_778,
    )

    def network(self, size: str) -> nn.Module:
        """Return the encoder alone: full 192 channels, compact 12 with larger steps."""
        from tumorbench_utils.models.swin import SwinEncoder

        if size == "full":
            return SwinEncoder(192, patch=2, window=7, heads=(3, 6, 12, 24))
        return SwinEncoder(12, patch=4, window=4, heads=(1, 2, 4, 8), features=self.dim)
