"""ResNet-8 in the layout of MLPerf Tiny: a 3x3 stem and three residual stacks of 16, 32 and 64 channels.

In: float32 (N, 1, 28, 28), normalised by `preprocess.fashion_mnist`. Out: logits (N, 10).
Source: Banbury et al. 2021, "MLPerf Tiny Benchmark", arXiv:2106.07597 (its image classification model).
"""

from __future__ import annotations

from torch import Tensor, nn


class Stack(nn.Module):
    """y = relu(bn(conv(relu(bn(conv(x))))) + shortcut(x)); the shortcut is a 1x1 convolution where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = stride == 1 and inputs == outputs
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return self.relu(self.body(x) + self.shortcut(x))


class ResNet8(nn.Module):
    """The whole network: `channels` is 1 for grey pictures, 3 for colour; `width` channels and `stride` of the stem."""

    def __init__(self, channels: int = 1, classes: int = 10, *, width: int = 16, stride: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.stacks = nn.Sequential(
            Stack(width, width, 1), Stack(width, 2 * width, 2), Stack(2 * width, 4 * width, 2)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes)."""
        return self.classifier(self.pool(self.stacks(self.stem(x))).flatten(1))


def build() -> nn.Module:
    """A fresh network for 28x28 grey pictures in 10 classes."""
    return ResNet8()
