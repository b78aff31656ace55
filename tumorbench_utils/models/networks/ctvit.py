"""CT-ViT, the image tower of CT-CLIP: a vision transformer with a codebook.

CT-ViT (Hamamci et al. 2024, arXiv 2403.17834) is a causal video transformer of
the Phenaki kind (Villegas et al. 2022, arXiv 2210.02399) that reads the axial slices as frames and
replaces every token by the nearest row of a codebook.
"""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

#: Voxels of a token along (slices, rows, columns); a patch must be a multiple of it.
CUBOID = (10, 20, 20)


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
    """

    def __init__(self, dim: int, width=512, depth=4, heads=8, head_width=32, codes=8192):
        super().__init__()
        voxels = math.prod(CUBOID)
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
        ct, ch, cw = CUBOID
        x = rearrange(x, "n 1 (t ct) (h ch) (w cw) -> n t h w (ct ch cw)", ct=ct, ch=ch, cw=cw)
        x = self.to_patch_emb(x)
        n, _, h, w = grid = tuple(x.shape[:4])
        x = rearrange(x, "n t h w c -> (n t) (h w) c")
        x = self.enc_spatial_transformer(x, grid, self.spatial_rel_pos_bias(h, w))
        x = self.enc_temporal_transformer(rearrange(x, "(n t) s c -> (n s) t c", n=n), grid)
        return rearrange(x, "(n s) t c -> n (t s) c", n=n)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim)."""
        return self.head(self.vq["_codebook"](self.tokens(x)).mean(dim=1))
