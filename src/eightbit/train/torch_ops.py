"""The array functions of `ops`, in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as f


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

    def clipped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        return torch.clamp(x, lo, hi)

    def still(self, x: Tensor) -> Tensor:
        return x.detach()

    def convolved(
        self, x: Tensor, w: Tensor, strides: Sequence[int], dilations: Sequence[int], group: int, exact: bool
    ) -> Tensor:
        function = {3: f.conv1d, 4: f.conv2d, 5: f.conv3d}[w.ndim]
        if exact:
            return function(x.double(), w.double(), None, strides, 0, dilations, group).float()
        return function(x, w, None, strides, 0, dilations, group)

    def product(self, a: Tensor, b: Tensor, exact: bool) -> Tensor:
        return (a.double() @ b.double()).float() if exact else a @ b

    def largest(
        self, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> Tensor:
        function = {1: f.max_pool1d, 2: f.max_pool2d, 3: f.max_pool3d}[len(kernel)]
        return function(x, tuple(kernel), tuple(strides), 0, tuple(dilations))

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
        return value.clone()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None
