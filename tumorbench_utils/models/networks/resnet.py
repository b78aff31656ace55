"""The image tower of Merlin: a ResNet-152 inflated to three dimensions."""

import torch.nn.functional as F
from torch import Tensor, nn

EXPANSION = 4


class _Bottleneck(nn.Module):
    """1 x 1 x 1, 3 x 3 x 3 and 1 x 1 x 1 convolution, added to the input (He et al. 2016)."""

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        outputs = EXPANSION * planes
        self.conv1 = nn.Conv3d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm3d(planes)
        self.conv2 = nn.Conv3d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm3d(planes)
        self.conv3 = nn.Conv3d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(outputs)
        self.downsample = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm3d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x), inplace=True)


class _GreyConvolution(nn.Conv3d):
    """Convolution of three equal channels, of which one is given.

    The release repeats the patch to three channels. One channel with the sum of the three kernels
    is the same.
    """

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.weight.sum(dim=1, keepdim=True)
        return F.conv3d(x, kernel, stride=self.stride, padding=self.padding)


class InflatedResNet(nn.Module):
    """ResNet whose 2D kernels were repeated along the slices (Carreira & Zisserman 2017).

    Parameters
    ----------
    dim : int
        Length of an embedding.
    blocks : tuple of 4 ints
        Bottlenecks of the four layers.
    planes : tuple of 4 ints
        Inner channels of the bottlenecks of the four layers.
    """

    def __init__(self, dim: int, blocks=(3, 8, 36, 3), planes=(64, 128, 256, 512)):
        super().__init__()
        inputs = planes[0]
        self.conv1 = _GreyConvolution(
            3, inputs, (3, 7, 7), stride=(1, 2, 2), padding=(1, 3, 3), bias=False
        )
        self.bn1 = nn.BatchNorm3d(inputs)
        for layer, (count, width) in enumerate(zip(blocks, planes, strict=True), start=1):
            parts = []
            for block in range(count):
                parts.append(_Bottleneck(inputs, width, 2 if layer > 1 and block == 0 else 1))
                inputs = EXPANSION * width
            self.add_module(f"layer{layer}", nn.Sequential(*parts))
        self.contrastive_head = nn.Conv3d(inputs, dim, 1)
        # Untrained, a random bias would outweigh the features, and all patches would look alike.
        nn.init.zeros_(self.contrastive_head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map patches (n, 1, R, A, S) to embeddings (n, dim) of length one."""
        x = x.permute(0, 1, 4, 2, 3)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.contrastive_head(x.mean(dim=(2, 3, 4), keepdim=True))
        return F.normalize(x.flatten(1), dim=1)
