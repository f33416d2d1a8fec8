"""The array functions of `ops`, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f

from eightbit.train.ops import FLOOR, Taps


class TorchOps:
    """On the device of the tensors given; constants go to `device`."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def constant(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self.device)

    def exp(self, x: Tensor) -> Tensor:
        return torch.exp(x)

    def passed(self, x: Tensor, value: Tensor) -> Tensor:
        return _Passed.apply(x, value)

    def rounded(self, x: Tensor) -> Tensor:
        return torch.round(x.detach())

    def snapped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        return _Snapped.apply(x, lo, hi)

    def requantized(self, acc: Tensor, factor: Tensor, lo: float, hi: float) -> Tensor:
        return _Requantized.apply(acc, factor, lo, hi)

    def clipped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        return torch.clamp(x, lo, hi)

    def still(self, x: Tensor) -> Tensor:
        return x.detach()

    def convolved(self, x: Tensor, w: Tensor, bias: Tensor | None, taps: Taps, exact: bool) -> Tensor:
        axes = len(taps.strides)
        function = {1: f.conv1d, 2: f.conv2d, 3: f.conv3d}[axes]
        before, after = taps.pads[:axes], taps.pads[axes:]
        if before != after:
            x = self.padded(x, [(0, 0), (0, 0), *zip(before, after, strict=True)], "constant", 0.0)
            before = (0,) * axes
        rest = taps.strides, before, taps.dilations, taps.group
        if exact:
            return function(x.double(), w.double(), None if bias is None else bias.double(), *rest).float()
        if axes == 2 and x.device.type == "cpu":  # a third faster there
            x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        return function(x, w, bias, *rest)

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(x.detach(), (0, *range(2, x.ndim)), correction=0)
        return mean, variance + FLOOR

    def normalized(self, x: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, inverse = torch.native_batch_norm(x, gain, offset, None, None, True, 0.0, FLOOR)
        return y, mean.detach(), inverse.detach().pow(-2)

    def product(self, a: Tensor, b: Tensor, exact: bool) -> Tensor:
        return (a.double() @ b.double()).float() if exact else a @ b

    def largest(
        self, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> Tensor:
        function = {1: f.max_pool1d, 2: f.max_pool2d, 3: f.max_pool3d}[len(kernel)]
        return function(x, tuple(kernel), tuple(strides), 0, tuple(dilations))

    def highest(self, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        return x.amax(tuple(axes), keepdim=keep)

    def totals(self, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
        if len(kernel) == 1:
            return self.totals(x[..., None, :], (1, *kernel), (1, *strides))[..., 0, :]
        function = f.avg_pool2d if len(kernel) == 2 else f.avg_pool3d
        return function(x, tuple(kernel), tuple(strides), divisor_override=1)

    def padded(self, x: Tensor, widths: Sequence[tuple[int, int]], mode: str, value: float) -> Tensor:
        if not any(chain.from_iterable(widths)):
            return x
        if mode == "constant":
            return f.pad(x, tuple(chain.from_iterable(reversed(widths))), value=value)
        for axis, pair in enumerate(widths):  # PyTorch pads the last axes only, and not by every mode
            if any(pair):
                places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)  # type: ignore[call-overload]
                x = x.index_select(axis, torch.from_numpy(places).to(x.device))
        return x

    def shape(self, x: Tensor) -> tuple[int, ...]:
        return tuple(x.shape)

    def reshaped(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return x.reshape(tuple(shape))

    def transposed(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        return x.permute(tuple(perm))

    def joined(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        return torch.cat(list(parts), axis)

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return x.sum(tuple(axes), keepdim=True)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        return torch.softmax(x, axis)

    def picked(self, table: Tensor, index: Tensor) -> Tensor:
        return table[index.long()]

    def unary(self, name: str, x: Tensor) -> Tensor:
        return _UNARY[name](x)

    def taken(self, x: Tensor, index: np.ndarray, axis: int) -> Tensor:
        places = torch.from_numpy(np.asarray(index).reshape(-1) % x.shape[axis]).to(x.device)
        found = x.index_select(axis, places)
        axis %= x.ndim
        return found.reshape(*x.shape[:axis], *np.shape(index), *x.shape[axis + 1 :])

    def chosen(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.where(condition, a, b)

    def computed(self, function: Callable[..., np.ndarray], *given: Tensor) -> Tensor:
        return self.constant(function(*(x.detach().cpu().numpy() for x in given)))

    def floats(self, x: Tensor) -> Tensor:
        return x.float()


_UNARY = {
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Exp": torch.exp,
    "Log": torch.log,
    "Sqrt": torch.sqrt,
    "Erf": torch.erf,
    "Tanh": torch.tanh,
    "Sigmoid": torch.sigmoid,
    "Relu": torch.relu,
    "Reciprocal": torch.reciprocal,
    "Softplus": f.softplus,
    "HardSwish": f.hardswish,
    "Mish": f.mish,
}


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, x: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _Snapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, lo: float, hi: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = lo, hi
        return torch.round(x).clamp_(lo, hi)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _within(grad, *ctx.saved_tensors, *ctx.bounds), None, None


class _Requantized(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, acc: Tensor, factor: Tensor, lo: float, hi: float) -> Tensor:
        value = acc * factor
        ctx.save_for_backward(value, factor)
        ctx.bounds = lo, hi
        return torch.round(value).clamp_(lo, hi)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        value, factor = ctx.saved_tensors
        grad = _within(grad, value, *ctx.bounds)
        slope = (grad * value).sum_to_size(factor.shape) / factor
        return grad.mul_(factor), slope, None, None


def _within(grad: Tensor, x: Tensor, lo: float, hi: float) -> Tensor:
    """`grad` where lo <= x <= hi, else 0; in one pass over the data, whose own bounds are excluded."""
    ends = np.array([lo, hi], np.float32), np.array([-np.inf, np.inf], np.float32)
    below, above = np.nextafter(*ends).tolist()
    return torch.ops.aten.hardtanh_backward(grad, x, below, above)
