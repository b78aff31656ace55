"""MedImageInsight: a 2D dual-attention transformer for medical images of every kind.

The image tower is a DaViT (Ding et al. 2022, arXiv 2204.03645). A patch is shown to it slice by
slice, each resized as Pillow would, and the embeddings of the slices are averaged.
"""

import functools
import math
import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tumorbench_utils.models.base import FoundationModel, ModelCard
from tumorbench_utils.patches import PatchSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)

#: Pillow keeps the weights of a resize of 8-bit images as integers with this many binary places.
_PLACES = 22


@functools.lru_cache
def _bicubic_weights(n: int, size: int) -> np.ndarray:
    """Return Pillow's integer weights, shape (size, n), of a bicubic resize from n to `size`."""
    scale = n / size
    stretch = max(scale, 1.0)
    support = 2.0 * stretch
    weights = np.zeros((size, n))
    for row in range(size):
        centre = (row + 0.5) * scale
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), n)
        x = np.abs((np.arange(first, last) - centre + 0.5) / stretch)
        near, far = (1.5 * x - 2.5) * x * x + 1, (((x - 5) * x + 8) * x - 4) * -0.5
        cubic = np.where(x < 1, near, np.where(x < 2, far, 0.0))
        # Summed from left to right, as Pillow does: the order decides the last bit.
        weights[row, first:last] = cubic / functools.reduce(lambda a, b: a + b, cubic.tolist())
    return np.trunc(weights * 2**_PLACES + np.copysign(0.5, weights))


def resize_like_pillow(images: Tensor, size: int) -> Tensor:
    """Resize 8-bit grey images exactly as ``PIL.Image.resize(..., BICUBIC)`` does.

    Pillow resizes the columns, rounds to 8 bits, resizes the rows and rounds again, in integer
    arithmetic. Float64 holds all these integers, so two matrix products do the same for a batch
    on any device.

    Parameters
    ----------
    images : Tensor of uint8, shape (n, rows, columns)
    size : int
        Rows and columns of the result.

    Returns
    -------
    Tensor of float64, shape (n, size, size)
        Whole numbers from 0 to 255.
    """

    def rounded(sums: Tensor) -> Tensor:
        return ((sums + 2 ** (_PLACES - 1)) / 2**_PLACES).floor().clamp(0, 255)

    down, across = (
        torch.as_tensor(_bicubic_weights(n, size), device=images.device) for n in images.shape[1:]
    )
    return rounded(down @ rounded(images.double() @ across.T))


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
        n, h, w, c = x.shape
        side = self.window
        # The border windows are filled up with zeros, which take part in the attention.
        x = F.pad(x, (0, 0, 0, -w % side, 0, -h % side))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        x = x.reshape(n, rows, side, columns, side, c).transpose(2, 3)
        x = F.scaled_dot_product_attention(*self.split(x.reshape(-1, side * side, c)))
        x = self.proj(x.transpose(1, 2).flatten(2))
        x = x.reshape(n, rows, columns, side, side, c).transpose(2, 3)
        return x.reshape(n, rows * side, columns * side, c)[:, :h, :w]


class _ChannelAttention(_Attention):
    """Attention between the channels of a group, over all tokens."""

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        query, key, value = self.split(x.reshape(n, h * w, c))
        weights = (query * (h * w) ** -0.5).transpose(-1, -2) @ key
        x = value @ weights.softmax(dim=-1).transpose(-1, -2)
        return self.proj(x.transpose(1, 2).reshape(n, h, w, c))


class _FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        fc1, fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.net = nn.ModuleDict({"fc1": fc1, "fc2": fc2})

    def forward(self, x: Tensor) -> Tensor:
        return self.net["fc2"](F.gelu(self.net["fc1"](x)))


class _Block(nn.Module):
    """A spatial block (attention in windows), then a channel block (attention over channels)."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        for name, attention in (
            ("window", _WindowAttention(width, heads, window)),
            ("channel", _ChannelAttention(width, heads)),
        ):
            parts = nn.ModuleDict(
                {
                    "conv1": _DepthwiseConvolution(width),
                    f"{name}_attn": _Residual(width, attention),
                    "conv2": _DepthwiseConvolution(width),
                    "ffn": _Residual(width, _FeedForward(width)),
                }
            )
            self.add_module("spatial_block" if name == "window" else "channel_block", parts)

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
    widths : tuple of int
        Channels of the stages; the first has a quarter of the pixels a side, each further half.
    depths : tuple of int
        Blocks of the stages.
    heads : tuple of int
        Heads, and groups of channels, of the stages.
    window : int
        Tokens a side of an attention window.
    pixels : int
        Side to which a slice is resized.
    slices : slice
        Which slices along the second axis of the patch are seen.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...] = (256, 512, 1024, 2048),
        depths: tuple[int, ...] = (1, 1, 9, 1),
        heads: tuple[int, ...] = (8, 16, 32, 64),
        window: int = 12,
        pixels: int = 480,
        slices: slice = slice(None),
    ):
        super().__init__()
        self.pixels, self.slices = pixels, slices
        self.convs = nn.ModuleList()
        self.blocks = nn.ModuleList()
        inputs = 3
        for width, depth, count in zip(widths, depths, heads, strict=True):
            self.convs.append(_Embedding(inputs, width, first=inputs == 3))
            self.blocks.append(nn.Sequential(*(_Block(width, count, window) for _ in range(depth))))
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
        x = resize_like_pillow(pictures, self.pixels).float()[..., None] / 255
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


#: The older names of the parts of a block, which the released code still accepts.
_OLD_NAMES = {
    "cpe.0.proj": "conv1.fn.dw",
    "cpe.1.proj": "conv2.fn.dw",
    "mlp": "ffn.fn.net",
    "norm1": "{}_attn.norm",
    "norm2": "ffn.norm",
    "attn": "{}_attn.fn",
}


class MedImageInsight(FoundationModel):
    """Image tower of MedImageInsight (Codella et al. 2024), averaged over 48 coronal slices.

    The benchmark's code means to take axial slices but takes coronal ones (rows towards the left,
    columns towards the head), and runs the network in training mode, where randomly dropped paths
    make its embeddings differ from run to run. Here it runs in evaluation mode. The mean of the
    unit vectors is not scaled to length one again. The compact encoder has to be quick, so it
    sees nine slices of 64 x 64 pixels around the middle of the patch, not 48 of 480 x 480.
    """

    key = "medimageinsight"
    spec = PatchSpec("LPS", window_hu=(-1000, 1000))
    dim = 1024
    prefixes = ("image_encoder.", "visual.")
    unused = ("*lang_encoder.*", "*lang_projection", "*text_projection", "text.*", "*logit_scale")
    unused += ("*image_encoder.head.*", "*visual.head.*", "head.*")
    card = ModelCard(
        title="MedImageInsight",
        paper="Codella NCF, Jin Y, Jain S, et al. MedImageInsight: an open-source embedding model "
        "for general domain medical imaging. arXiv 2410.06542",
        year=2024,
        doi="10.48550/arXiv.2410.06542",
        citation="codella2024medimageinsight",
        strategy="contrastive alignment of images with texts and labels",
        data="2D medical images with texts or labels: X-ray, CT, MRI, dermoscopy, OCT, fundus, "
        "ultrasound, histopathology, mammography",
        licence="MIT, stated by those who re-packaged the weights; Microsoft's own page decides",
        allows="free use as far as the re-packaged copy is concerned; read Microsoft's terms first",
        access="open",
        source="https://huggingface.co/lion-ai/MedImageInsights",
        file="2024.09.27/vision_model/medimageinsigt-v1.0.0.pt",
        repo="lion-ai/MedImageInsights",
        native_input="2D images of 480 x 480 pixels, three channels, ImageNet mean and sd (the "
        "compact encoder of this book: nine slices of 64 x 64 pixels)",
        native_spec=None,
        parameters=362_733_568,
    )

    def own_name(self, released: str, prefix: str) -> str | None:
        """Return the encoder's name of a released tensor; the projection carries no prefix."""
        bare = released.removeprefix("module.")
        if bare in ("image_projection", "vision_projection"):
            return "image_projection"
        name = super().own_name(released, prefix)
        old = name and re.fullmatch(
            rf"main_blocks\.(\d+\.\d+)\.([01])\.({'|'.join(_OLD_NAMES)})\.(.+)", name
        )
        if old:
            place, second, part, rest = old.groups()
            block, kind = (("spatial", "window"), ("channel", "channel"))[int(second)]
            return f"blocks.{place}.{block}_block.{_OLD_NAMES[part].format(kind)}.{rest}"
        return name and name.replace("conv_embeds.", "convs.")

    def network(self, size: str) -> nn.Module:
        """Return the image tower: full 256..2048 channels, compact 32..128 on nine slices."""
        if size == "full":
            return SliceDaViT(self.dim)
        return SliceDaViT(
            self.dim,
            widths=(32, 64, 128),
            depths=(1, 1, 1),
            heads=(2, 4, 8),
            window=4,
            pixels=64,
            slices=slice(12, 37, 3),
        )
