"""A small MobileNetV2 for Fashion-MNIST: depthwise separable convolutions, inverted residuals, ReLU6.

In: float32 (N, 1, 28, 28), normalised by `preprocess.fashion_mnist`. Out: logits (N, 10).
Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381, table 2
scaled down to 28x28 pictures.
"""

from __future__ import annotations

from torch import Tensor, nn

# expansion, output channels, blocks, stride of the first block
LAYOUT = ((1, 16, 1, 1), (4, 24, 2, 1), (4, 40, 2, 2), (4, 64, 2, 1))


def conv_bn_relu6(
    inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, BatchNorm, ReLU6; padded so that stride 1 keeps the size."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6())


class InvertedResidual(nn.Module):
    """Widen by 1x1, filter depthwise by 3x3, project by 1x1 without activation; added to x where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        wide = inputs * expansion
        layers: list[nn.Module] = [conv_bn_relu6(inputs, wide, 1)] if expansion > 1 else []
        layers += [
            conv_bn_relu6(wide, wide, 3, stride=stride, groups=wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        self.body = nn.Sequential(*layers)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, ceil(H / stride), ceil(W / stride))."""
        return x + self.body(x) if self.residual else self.body(x)


class MobileNet(nn.Module):
    """Stem with stride 2, seven inverted residuals (three with an addition), a 1x1 head, pool, linear layer."""

    def __init__(self, channels: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn_relu6(channels, 32, 3, stride=2)
        blocks, width = [], 32
        for expansion, outputs, count, first_stride in LAYOUT:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(InvertedResidual(width, outputs, expansion=expansion, stride=stride))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = conv_bn_relu6(width, 160, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(160, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> logits (N, classes)."""
        return self.classifier(self.pool(self.head(self.blocks(self.stem(x)))).flatten(1))


def build() -> nn.Module:
    """A fresh network for 28x28 grey pictures in 10 classes."""
    return MobileNet()
