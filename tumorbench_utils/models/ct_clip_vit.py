"""CT-CLIP: a vision transformer whose chest CT embeddings were aligned with radiology reports.

The image tower is CT-ViT (Hamamci et al. 2024, arXiv 2403.17834), a causal video transformer of
the Phenaki kind (Villegas et al. 2022, arXiv 2210.02399) that reads the axial slices as frames and
replaces every token by the nearest row of a codebook.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec


class _LayerNorm(nn.Module):
    """Layer normalisation with the parameter names of the release."""

    def __init__(self, width: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))
        self.register_buffer("beta", torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.gamma.shape, self.gamma, self.beta)


class _PositionBias(nn.Module):
    """Attention bias (heads, h*w, h*w): a small network of the log distances of two tokens."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        hidden = nn.Sequential(nn.Linear(2, width), nn.LeakyReLU(0.1))
        further = nn.Sequential(nn.Linear(width, width), nn.LeakyReLU(0.1))
        self.net = nn.Sequential(hidden, further, nn.Linear(width, heads))

    def forward(self, h: int, w: int) -> Tensor:
        weight = self.net[2].weight
        axes = [torch.arange(n, device=weight.device, dtype=weight.dtype) for n in (h, w)]
        grid = torch.cartesian_prod(*axes)
        distance = grid[:, None] - grid[None, :]
        return self.net(distance.sign() * distance.abs().log1p()).permute(2, 0, 1)


class _PositionConvolution(nn.Module):
    """Depth-wise convolution over (t, h, w); in t it looks back only."""

    def __init__(self, width: int):
        super().__init__()
        self.dsconv = nn.Conv3d(width, width, 3, groups=width)

    def forward(self, tokens: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        # In the temporal transformer the tokens lie as (b h w) t, yet the release reads them as
        # b t h w here. Its weights were trained with that order, so it is kept.
        x = tokens.reshape(*grid, -1).movedim(-1, 1)
        x = self.dsconv(F.pad(x, (1, 1, 1, 1, 2, 0)))
        return x.movedim(1, -1).reshape(tokens.shape)


class _Attention(nn.Module):
    """Cosine attention; queries come from normalised tokens, keys and values from raw ones."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        inner = heads * head_width
        self.heads = heads
        self.norm = _LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.q_scale = nn.Parameter(torch.ones(head_width))
        self.k_scale = nn.Parameter(torch.ones(head_width))
        self.to_out = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        key, value = self.to_kv(x).chunk(2, dim=-1)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.to_q(self.norm(x)), key, value)
        )
        query = F.normalize(query, dim=-1) * self.q_scale
        key = F.normalize(key, dim=-1) * self.k_scale
        x = F.scaled_dot_product_attention(query, key, value.to(query), attn_mask=bias, scale=8)
        return self.to_out(x.transpose(1, 2).flatten(2))


class _GEGLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * F.gelu(gate)


class _Transformer(nn.Module):
    """Layers of position convolution, attention and feed-forward, each added to its input."""

    def __init__(self, width: int, depth: int, heads: int, head_width: int):
        super().__init__()
        hidden = int(4 * 2 / 3 * width)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            feed_forward = [
                nn.LayerNorm(width),
                nn.Linear(width, 2 * hidden, bias=False),
                _GEGLU(),
                nn.Identity(),  # the released names count a dropout here
                nn.Linear(hidden, width, bias=False),
            ]
            attention = _Attention(width, heads, head_width)
            # The names count a cross-attention between the two that CT-ViT does not have.
            parts = {"0": _PositionConvolution(width), "1": attention}
            parts["3"] = nn.Sequential(*feed_forward)
            self.layers.append(nn.ModuleDict(parts))
        self.norm_out = _LayerNorm(width)

    def forward(self, x: Tensor, grid: tuple, bias: Tensor | None = None) -> Tensor:
        for layer in self.layers:
            x = layer["0"](x, grid) + x
            x = layer["1"](x, bias) + x
            x = layer["3"](x) + x
        return self.norm_out(x)


class _Codebook(nn.Module):
    """Vector quantisation by cosine; gradients pass straight through to the tokens."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        # The release moves the rows by running means, not by gradients: no parameter.
        self.register_buffer("embed", torch.randn(1, rows, width) / math.sqrt(width))

    def nearest(self, tokens: Tensor) -> Tensor:
        """Return the index of the row with the largest cosine for tokens (n, t, width)."""
        # Products of eight bits often name a wrong row, so autocast ends here. It does not know
        # the meta device, on which shapes are traced.
        device = tokens.device.type
        exact = nullcontext() if tokens.is_meta else torch.autocast(device, enabled=False)
        with exact:
            rows = F.normalize(self.embed[0].float(), dim=-1)
            return (F.normalize(tokens.float(), dim=-1) @ rows.T).argmax(dim=-1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embed[0][self.nearest(tokens)] + (tokens - tokens.detach())


class CTViT(nn.Module):
    """Spatial then temporal transformer over cuboids of a patch, quantised and averaged.

    Parameters
    ----------
    dim : int
        Length of an embedding.
    width : int
        Length of a token. Where it is not `dim`, a linear layer follows the average.
    depth : int
        Layers of each of the two transformers.
    heads, head_width : int
    codes : int
        Rows of the codebook.
    cuboid : tuple of 3 ints
        Voxels of a token along (slices, rows, columns); the patch must be a multiple of it.
    """

    def __init__(
        self,
        dim: int,
        width: int = 512,
        depth: int = 4,
        heads: int = 8,
        head_width: int = 32,
        codes: int = 8192,
        cuboid: tuple[int, int, int] = (10, 20, 20),
    ):
        super().__init__()
        self.cuboid = cuboid
        voxels = math.prod(cuboid)
        self.to_patch_emb = nn.Sequential(
            nn.Identity(),  # the released names count the rearrangement into cuboids
            nn.LayerNorm(voxels),
            nn.Linear(voxels, width),
            nn.LayerNorm(width),
        )
        self.spatial_rel_pos_bias = _PositionBias(width, heads)
        self.enc_spatial_transformer = _Transformer(width, depth, heads, head_width)
        self.enc_temporal_transformer = _Transformer(width, depth, heads, head_width)
        self.vq = nn.ModuleDict({"_codebook": _Codebook(codes, width)})
        self.head = nn.Linear(width, dim, bias=False) if width != dim else nn.Identity()

    def tokens(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to tokens (n, t*h*w, width) before quantisation."""
        if any(side % edge for side, edge in zip(x.shape[2:], self.cuboid, strict=True)):
            raise ValueError(
                f"CT-ViT cuts a patch into cuboids of {self.cuboid} voxels; the sides "
                f"{tuple(x.shape[2:])} are no multiples of it"
            )
        ct, ch, cw = self.cuboid
        n, t, h, w = len(x), x.shape[2] // ct, x.shape[3] // ch, x.shape[4] // cw
        x = x.reshape(n, t, ct, h, ch, w, cw).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
        x = self.to_patch_emb(x)
        grid = (n, t, h, w)
        x = self.enc_spatial_transformer(
            x.reshape(n * t, h * w, -1), grid, self.spatial_rel_pos_bias(h, w)
        )
        x = x.reshape(n, t, h * w, -1).transpose(1, 2).reshape(n * h * w, t, -1)
        x = self.enc_temporal_transformer(x, grid)
        return x.reshape(n, h * w, t, -1).transpose(1, 2).flatten(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(self.vq["_codebook"](self.tokens(x)).mean(dim=1))


class CTCLIP(FoundationModel):
    """Image tower of CT-CLIP: the mean of the codebook rows of a patch's 54 tokens.

    The embedding is piecewise constant: a small change of the patch changes nothing until a token
    falls to another row. The benchmark gives 1.5 mm to the left-right axis and 0.75 mm to the
    other two, where the model was trained with 1.5 mm between slices; `card.native_spec` has the
    spacings where they belong.
    """

    key = "ct_clip_vit"
    spec = PatchSpec("SLP", (1.5, 0.75, 0.75), (60, 60, 60), (-1000, 1000), (-1, 1))
    dim = 512
    prefixes = ("visual_transformer.",)
    unused = (
        "*text_transformer.*",
        "*to_text_latent*",
        "*to_visual_latent*",
        "*temperature",
        "*to_pixels*",
        "*to_patch_emb_first_frame.*",
        "*.context_norm.*",
        "*.null_kv",
        "*_codebook.cluster_size",
        "*_codebook.initted",
    )
    card = ModelCard(
        title="CT-CLIP",
        paper="Hamamci IE, Er S, Wang C, et al. Developing generalist foundation models from a "
        "multimodal dataset for 3D computed tomography. arXiv 2403.17834",
        year=2024,
        doi="10.48550/arXiv.2403.17834",
        citation="hamamci2024ctclip",
        strategy="contrastive alignment of scans with their radiology reports",
        data="CT-RATE: non-contrast chest CT of 21,304 patients with reports",
        licence="CC BY-NC-SA 4.0, stated for all elements of the release",
        allows="research and teaching with attribution; no commercial use; what is made from it "
        "carries the same licence",
        access="gated",
        gate="log in at Hugging Face, accept the conditions on the page of CT-RATE, and make an "
        "access token (huggingface-cli login)",
        source="https://huggingface.co/datasets/ibrahimhamamci/CT-RATE",
        file="models/CT-CLIP-Related/CT-CLIP_v2.pt",
        repo="ibrahimhamamci/CT-RATE",
        repo_type="dataset",
        native_input="(slices, two in-plane axes as the file has them), 1.5 mm between slices and "
        "0.75 mm in the plane, 240 x 480 x 480 voxels, -1000..1000 HU scaled to -1..1",
        native_spec=PatchSpec("SLP", (0.75, 0.75, 1.5), (240, 480, 480), (-1000, 1000), (-1, 1)),
        parameters=23_421_768,
    )

    def network(self, size: str) -> nn.Module:
        """Return the image tower: full 512 wide and 4 + 4 deep, compact 96 and 2 + 2."""
        if size == "full":
            return CTViT(self.dim)
        return CTViT(self.dim, width=96, depth=2, heads=4, head_width=24, codes=1024)
