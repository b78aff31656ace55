"""DaViT, the image tower of MedImageInsight: attention in windows and between channels.

Ding et al. 2022 (arXiv 2204.03645). A patch is shown to it slice by slice, each
resized as Pillow does, and the embeddings of the slices are averaged.
"""

import math
from collections import OrderedDict

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)

#: Channels, blocks and heads of the stages of the released network.
RELEASED = ((256, 1, 8), (512, 1, 16), (1024, 9, 32), (2048, 1, 64))


def resize(images: Tensor, side: int) -> Tensor:
    """Resize 8-bit grey images (n, rows, columns) to (n, side, side), as Pillow does (bicubic)."""
    if images.is_meta:  # shapes are traced without values
        return images.new_empty(len(images), side, side)
    pictures = map(Image.fromarray, images.cpu().numpy())
    large = [np.asarray(p.resize((side, side), Image.Resampling.BICUBIC)) for p in pictures]
    return torch.from_numpy(np.stack(large)).to(images.device)


class _DepthwiseConvolution(nn.Module):
    """Residual 3 x 3 convolution of every channel, on tokens (n, h, w, c)."""

    def __init__(self, width: int):
        super().__init__()
        self.fn = nn.ModuleDict({"dw": nn.Conv2d(width, width, 3, padding=1, groups=width)})

    def forward(self, x: Tensor) -> Tensor:
        # Tokens with the channels last are an image in channels-last memory: nothing is copied.
        return x + self.fn["dw"](x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class _Residual(nn.Module):
    """``x + fn(norm(x))``."""

    def __init__(self, width: int, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map tokens (n, t, c) to queries, keys and values, each (n, heads, t, c / heads)."""
        n, t, _ = x.shape
        return self.qkv(x).reshape(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind()


class _WindowAttention(_Attention):
    """Attention between the tokens of a window."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__(width, heads)
        self.window = window

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, _ = x.shape
        side = self.window
        # The border windows are filled up with zeros, which take part in the attention.
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        rows = x.shape[1] // side
        x = rearrange(x, "n (r i) (s j) c -> (n r s) (i j) c", i=side, j=side)
        x = F.scaled_dot_product_attention(*self.split(x))
        x = self.proj(x.transpose(1, 2).flatten(2))
        x = rearrange(x, "(n r s) (i j) c -> n (r i) (s j) c", n=n, r=rows, i=side)
        return x[:, :h, :w]


class _ChannelAttention(_Attention):
    """Attention between the channels of a group, over all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        query, key, value = self.split(x.reshape(n, h * w, c))
        weights = (query * (h * w) ** -0.5).transpose(-1, -2) @ key
        x = value @ weights.softmax(dim=-1).transpose(-1, -2)
        return self.proj(x.transpose(1, 2).reshape(n, h, w, c))


def _feed_forward(width: int) -> nn.Sequential:
    parts = {"fc1": nn.Linear(width, 4 * width), "act": nn.GELU()}
    parts["fc2"] = nn.Linear(4 * width, width)
    return nn.Sequential(OrderedDict(net=nn.Sequential(OrderedDict(parts))))


class _Block(nn.Module):
    """A spatial block (attention in windows), then a channel block (attention over channels)."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        spatial, channel = _WindowAttention(width, heads, window), _ChannelAttention(width, heads)
        for kind, name, attention in (
            ("spatial", "window", spatial),
            ("channel",) * 2 + (channel,),
        ):
            parts = {"conv1": _DepthwiseConvolution(width)}
            parts[f"{name}_attn"] = _Residual(width, attention)
            parts["conv2"] = _DepthwiseConvolution(width)
            parts["ffn"] = _Residual(width, _feed_forward(width))
            self.add_module(f"{kind}_block", nn.ModuleDict(parts))

    def forward(self, x: Tensor) -> Tensor:
        for part in (*self.spatial_block.values(), *self.channel_block.values()):
            x = part(x)
        return x


class _Embedding(nn.Module):
    """Strided convolution to tokens; the first stage is normalised after it, the others before."""

    def __init__(self, inputs: int, width: int, first: bool):
        super().__init__()
        kernel, stride, padding = (7, 4, 3) if first else (3, 2, 1)
        self.first = first
        self.proj = nn.Conv2d(inputs, width, kernel, stride, padding)
        self.norm = nn.LayerNorm(width if first else inputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.first else self.norm(x)
        x = self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.norm(x) if self.first else x


class SliceDaViT(nn.Module):
    """Dual-attention transformer over coronal slices, averaged.

    Parameters
    ----------
    dim : int
        Length of an embedding.
    stages : tuple of (width, depth, heads)
        Channels, blocks, and heads (groups of channels) of each stage; the first has a quarter of
        the pixels a side, each further half as many.
    window : int
        Tokens a side of an attention window.
    pixels : int
        Side to which a slice is resized.
    slices : slice
        Which slices along the second axis of the patch are seen.
    """

    def __init__(self, dim: int, stages=RELEASED, window=12, pixels=480, slices=slice(None)):
        super().__init__()
        self.pixels, self.slices = pixels, slices
        self.convs, self.blocks = nn.ModuleList(), nn.ModuleList()
        inputs = 3
        for width, depth, heads in stages:
            self.convs.append(_Embedding(inputs, width, first=inputs == 3))
            self.blocks.append(nn.Sequential(*(_Block(width, heads, window) for _ in range(depth))))
            inputs = width
        self.norms = nn.LayerNorm(inputs)
        self.image_projection = nn.Parameter(torch.randn(inputs, dim) / math.sqrt(inputs))

    def pictures(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) in 0..1 to 8-bit coronal slices (n, slices, d0, d2)."""
        return (x[:, 0, :, self.slices].transpose(1, 2) * 255).to(torch.uint8)

    def embed_pictures(self, pictures: Tensor) -> Tensor:
        """Map 8-bit pictures (n, rows, columns) to unit vectors (n, dim)."""
        mean, sd = (
            pictures.new_tensor(v, dtype=torch.float32) for v in (IMAGENET_MEAN, IMAGENET_SD)
        )
        x = resize(pictures, self.pixels).float()[..., None] / 255
        x = (x - mean) / sd
        for conv, blocks in zip(self.convs, self.blocks, strict=True):
            x = blocks(conv(x))
        x = self.norms(x.mean(dim=(1, 2))) @ self.image_projection
        return F.normalize(x, dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, d0, d1, d2) to embeddings (n, dim), means of unit vectors."""
        pictures = self.pictures(x)
        different, which = pictures.flatten(0, 1), slice(None)
        if not x.is_meta:
            # Slices that are alike, in the padding or in an occluded patch, are embedded once.
            different, which = different.unique(dim=0, return_inverse=True)
        # 36 or 4 slices of the full encoder, which needs about 0.2 GB for each.
        chunk = max(1, 2 ** (23 if x.is_cuda else 20) // self.pixels**2)
        embedded = torch.cat([self.embed_pictures(part) for part in different.split(chunk)])
        return embedded[which].reshape(*pictures.shape[:2], -1).mean(dim=1)
