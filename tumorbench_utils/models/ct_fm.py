"""CT-FM: a residual encoder trained by contrast on whole-body CT."""

from torch import nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec


class CTFM(FoundationModel):
    """Encoder of CT-FM (Pai et al. 2025), averaged over space."""

    key = "ct_fm"
    spec = PatchSpec(orientation="SPL")
    dim = 512
    prefixes = ("encoder.",)
    unused = ("up_layers.*", "module.up_layers.*")
    card = ModelCard(
        title="CT-FM",
        paper="Pai S, Hadzic I, Bontempi D, et al. Vision foundation models for computed "
        "tomography. arXiv:2501.09001",
        year=2025,
        doi="10.48550/arXiv.2501.09001",
        citation="pai2025ctfm",
        strategy="self-supervised contrastive learning between crops, without labels",
        data="148,000 CT scans of the Imaging Data Commons",
        licence="MIT (code); that of the weights is stated on their page and was not seen",
        allows="anything the page of the weights does not forbid; the code may be used freely",
        access="open",
        source="https://huggingface.co/surajpaib/CT-FM-SegResNet",
        file="pretrained_segresnet.torch",
        repo="surajpaib/CT-FM-SegResNet",
        native_input="SPL, -1024..2048 HU scaled to 0..1, as in the benchmark; larger crops of "
        "whole-body scans, whose voxel size no single specification says",
        native_spec=None,
        parameters=77_760_992,
    )

    def network(self, size: str) -> nn.Module:
        """Return the encoder: full 32..512 channels, compact 8..64 on a strided first layer."""
        from tumorbench_utils.models.segresnet import SegResNetEncoder

        if size == "full":
            return SegResNetEncoder(32, (1, 2, 2, 4, 4), "batch")
        return SegResNetEncoder(8, (1, 1, 2, 4), "batch", stride=2, features=self.dim)
