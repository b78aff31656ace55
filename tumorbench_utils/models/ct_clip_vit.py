"""CT-CLIP: a vision transformer whose chest CT embeddings were aligned with radiology reports."""

from tumorbench_utils.models.base import Published


class CTCLIP(Published):
    """Image tower of CT-CLIP: the mean of the codebook rows of a patch's 54 tokens.

    The embedding is piecewise constant: a small change of the patch changes nothing until a token
    falls to another row. The benchmark gives 1.5 mm to the left-right axis and 0.75 mm to the
    other two, where the model was trained with 1.5 mm between slices; `card.native_spec` has the
    spacings where they belong.
    """

    key = "ct_clip_vit"

    def network(self, size: str):
        """Return the image tower: full 512 wide and 4 + 4 deep, compact 96 and 2 + 2."""
        from tumorbench_utils.models.networks.ctvit import CTViT

        if size == "full":
            return CTViT(self.dim)
        return CTViT(self.dim, width=96, depth=2, heads=4, head_width=24, codes=1024)
