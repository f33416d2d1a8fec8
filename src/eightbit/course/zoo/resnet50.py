"""ResNet-50: bottlenecks of 3, 4, 6 and 3, in the two layouts that are in use.

In: float32 (N, 3, H, W). Out: logits (N, classes). The paper's layout ("v1", the one of keras.applications) puts a
block's stride on its first 1x1 convolution; torchvision's ("v1.5") puts it on the 3x3 one.
Source: He et al. 2015, arXiv:1512.03385, table 1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eightbit.course.zoo.resnet50_layout import EXPANSION, LAYOUT

# Random weights have no trained BatchNorm statistics to hold the activations' spread across sixteen additions;
# a branch scaled by this keeps it within a factor of two from stem to head.
BRANCH_SCALE = 0.25


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 widen by 4, plus the shortcut (a 1x1 convolution where shapes change), then ReLU."""

    def __init__(self, inputs: int, width: int, stride: int, *, v1: bool, epsilon: float) -> None:
        super().__init__()
        outputs = width * EXPANSION
        first, second = (stride, 1) if v1 else (1, stride)
        self.body = nn.Sequential(
            nn.Conv2d(inputs, width, 1, first, bias=False),
            nn.BatchNorm2d(width, epsilon),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, second, padding=1, bias=False),
            nn.BatchNorm2d(width, epsilon),
            nn.ReLU(),
            nn.Conv2d(width, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, epsilon),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs, epsilon)
            )
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, 4 * width, ceil(H / stride), ceil(W / stride))."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Module):
    """The whole network, He-initialised; `v1` chooses the layout, `epsilon` is BatchNorm's."""

    def __init__(self, classes: int = 1000, *, v1: bool = False, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(64, epsilon),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        blocks, inputs = [], 64
        for width, count, first_stride in LAYOUT:
            for i in range(count):
                blocks.append(
                    Bottleneck(inputs, width, first_stride if i == 0 else 1, v1=v1, epsilon=epsilon)
                )
                inputs = width * EXPANSION
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                # A block begins as its shortcut (Goyal et al. 2017, arXiv:1706.02677, 5.1): training starts stable.
                nn.init.zeros_(module.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        return self.classifier(self.pool(self.blocks(self.stem(x))).flatten(1))


def build() -> nn.Module:
    """A fresh network for 224x224 pictures in 1,000 classes."""
    return ResNet50()


def load() -> nn.Module:
    """The same network with seeded random weights: its speed is that of a trained one, its answers mean nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ResNet50()
    for block in model.blocks:
        nn.init.constant_(block.body[-1].weight, BRANCH_SCALE)
    return model
