"""MedImageInsight: a 2D dual-attention transformer for medical images of every kind."""

import re

from tumorbench_utils.models.base import Published

#: The older names of the parts of a block, which the released code still accepts.
_OLD_NAMES = {
    "cpe.0.proj": "conv1.fn.dw",
    "cpe.1.proj": "conv2.fn.dw",
    "mlp": "ffn.fn.net",
    "norm1": "{}_attn.norm",
    "norm2": "ffn.norm",
    "attn": "{}_attn.fn",
}


class MedImageInsight(Published):
    """Image tower of MedImageInsight (Codella et al. 2024), averaged over 48 coronal slices.

    The benchmark's code means to take axial slices but takes coronal ones (rows towards the left,
    columns towards the head), and runs the network in training mode, where randomly dropped paths
    make its embeddings differ from run to run. Here it runs in evaluation mode. The mean of the
    unit vectors is not scaled to length one again. The compact encoder has to be quick, so it
    sees nine slices of 64 x 64 pixels around the middle of the patch, not 48 of 480 x 480.
    """

    key = "medimageinsight"

    def own_name(self, released: str, prefix: str) -> str | None:
        """Return the encoder's name of a released tensor; the projection carries no prefix."""
        if released.removeprefix("module.") in ("image_projection", "vision_projection"):
            return "image_projection"
        name = super().own_name(released, prefix)
        parts = "|".join(_OLD_NAMES)
        old = name and re.fullmatch(rf"main_blocks\.(\d+\.\d+)\.([01])\.({parts})\.(.+)", name)
        if old:
            place, second, part, rest = old.groups()
            block, kind = (("spatial", "window"), ("channel", "channel"))[int(second)]
            return f"blocks.{place}.{block}_block.{_OLD_NAMES[part].format(kind)}.{rest}"
        return name and name.replace("conv_embeds.", "convs.")

    def network(self, size: str):
        """Return the image tower: full 256..2048 channels, compact 32..128 on nine slices."""
        from tumorbench_utils.models.networks.davit import SliceDaViT

        if size == "full":
            return SliceDaViT(self.dim)
        stages = ((32, 1, 2), (64, 1, 4), (128, 1, 8))
        return SliceDaViT(self.dim, stages, window=4, pixels=64, slices=slice(12, 37, 3))
