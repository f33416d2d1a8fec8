"""The array functions of `ops`, in TensorFlow, the backend of Keras that exports and trains here.

TensorFlow convolves and pools on processors with channels last, and knows no gradient of grouped or dilated kernels
there; so channels go to the end and back, dilated kernels are written out with their zeros, and groups run one by one
unless they are single channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import chain, product

import numpy as np
import tensorflow as tf

from eightbit.train.ops import FLOOR, Taps, Tensor


class KerasOps:
    """On the device that TensorFlow chooses."""

    def constant(self, array: np.ndarray) -> Tensor:
        return tf.constant(array)

    def exp(self, x: Tensor) -> Tensor:
        return tf.exp(x)

    def passed(self, x: Tensor, value: Tensor) -> Tensor:
        return _passed(x, value)

    def rounded(self, x: Tensor) -> Tensor:
        return tf.stop_gradient(tf.round(x))

    def clipped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        return tf.clip_by_value(x, lo, hi)

    def still(self, x: Tensor) -> Tensor:
        return tf.stop_gradient(x)

    def snapped(self, x: Tensor, lo: float, hi: float) -> Tensor:
        held = tf.clip_by_value(x, lo, hi)
        return _passed(held, tf.stop_gradient(tf.round(held)))

    def requantized(self, acc: Tensor, factor: Tensor, lo: float, hi: float) -> Tensor:
        return self.snapped(acc * factor, lo, hi)

    def convolved(self, x: Tensor, w: Tensor, bias: Tensor | None, taps: Taps, exact: bool) -> Tensor:
        axes = len(taps.strides)
        widths = [(0, 0), (0, 0), *zip(taps.pads[:axes], taps.pads[axes:], strict=True)]
        x = self.padded(x, widths, "constant", 0.0)
        if axes == 1:
            x, w = x[:, :, None], w[:, :, None]
        strides, dilations = ((1,) * (2 - axes) + each for each in (taps.strides, taps.dilations))
        if exact:
            x, w = tf.cast(x, tf.float64), tf.cast(w, tf.float64)
        kernel = tf.transpose(_spread(w, dilations), (2, 3, 1, 0))
        last = tf.transpose(x, (0, 2, 3, 1))
        if taps.group == 1:
            y = tf.nn.conv2d(last, kernel, strides, "VALID")
        elif kernel.shape[2] == 1:
            y = _by_channel(last, _channel_kernel(kernel, taps.group), strides)
        else:
            parts = zip(tf.split(last, taps.group, 3), tf.split(kernel, taps.group, 3), strict=True)
            y = tf.concat([tf.nn.conv2d(part, k, strides, "VALID") for part, k in parts], 3)
        y = y if bias is None else y + tf.cast(bias, y.dtype)
        y = tf.cast(tf.transpose(y, (0, 3, 1, 2)), tf.float32)
        return y[:, :, 0] if axes == 1 else y

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = tf.nn.moments(tf.stop_gradient(x), [0, *range(2, x.shape.rank)])
        return mean, variance + FLOOR

    def normalized(self, x: Tensor, gain: Tensor, offset: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = tf.nn.moments(x, [0, *range(2, x.shape.rank)], keepdims=True)
        factors = (tf.reshape(each, variance.shape) for each in (gain, offset))
        gain, offset = factors
        y = tf.nn.batch_normalization(x, mean, variance, offset, gain, FLOOR)
        found = (tf.reshape(tf.stop_gradient(each), (-1,)) for each in (mean, variance + FLOOR))
        return (y, *found)

    def product(self, a: Tensor, b: Tensor, exact: bool) -> Tensor:
        if exact:
            return tf.cast(tf.matmul(tf.cast(a, tf.float64), tf.cast(b, tf.float64)), tf.float32)
        return tf.matmul(a, b)

    def largest(
        self, x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
    ) -> Tensor:
        if len(kernel) == 1:
            planes = self.largest(x[:, :, None], (1, *kernel), (1, *strides), (1, *dilations))
            return planes[:, :, 0]
        if max(dilations) == 1:
            y = tf.nn.max_pool2d(tf.transpose(x, (0, 2, 3, 1)), tuple(kernel), tuple(strides), "VALID")
            return tf.transpose(y, (0, 3, 1, 2))
        reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        ends = [n - r for n, r in zip(self.shape(x)[2:], reach, strict=True)]
        starts = product(*(range(0, r + 1, d) for r, d in zip(reach, dilations, strict=True)))
        windows = [x[:, :, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]] for i, j in starts]
        return reduce(tf.maximum, windows)

    def highest(self, x: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
        return tf.reduce_max(x, tuple(axes), keepdims=keep)

    def totals(self, x: Tensor, kernel: Sequence[int], strides: Sequence[int]) -> Tensor:
        if len(kernel) == 1:
            return self.totals(x[:, :, None], (1, *kernel), (1, *strides))[:, :, 0]
        ones = tf.ones((*kernel, x.shape[1], 1))
        return tf.transpose(_by_channel(tf.transpose(x, (0, 2, 3, 1)), ones, strides), (0, 3, 1, 2))

    def padded(self, x: Tensor, widths: Sequence[tuple[int, int]], mode: str, value: float) -> Tensor:
        if not any(chain.from_iterable(widths)):
            return x
        if mode == "constant":
            return tf.pad(x, widths, constant_values=value)
        for axis, pair in enumerate(widths):
            if any(pair):
                places = np.pad(np.arange(x.shape[axis]), pair, mode=mode)  # type: ignore[call-overload]
                x = tf.gather(x, places, axis=axis)
        return x

    def shape(self, x: Tensor) -> tuple[int, ...]:
        """Lengths that are not known before the run, as that of the batch, are scalars of TensorFlow."""
        return tuple(tf.shape(x)[i] if n is None else n for i, n in enumerate(x.shape))

    def reshaped(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        return tf.reshape(x, tuple(shape))

    def transposed(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        return tf.transpose(x, tuple(perm))

    def joined(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        return tf.concat(list(parts), axis)

    def total(self, x: Tensor, axes: Sequence[int]) -> Tensor:
        return tf.reduce_sum(x, tuple(axes), keepdims=True)

    def softmax(self, x: Tensor, axis: int) -> Tensor:
        return tf.nn.softmax(x, axis)

    def picked(self, table: Tensor, index: Tensor) -> Tensor:
        return tf.gather(table, tf.cast(index, tf.int32))

    def unary(self, name: str, x: Tensor) -> Tensor:
        return _UNARY[name](x)

    def taken(self, x: Tensor, index: np.ndarray, axis: int) -> Tensor:
        axis %= x.shape.rank
        places = np.asarray(index)
        if (places < 0).any():
            places = places % x.shape[axis]
        return tf.gather(x, places, axis=axis)

    def chosen(self, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return tf.where(condition, a, b)

    def computed(self, function: Callable[..., np.ndarray], *given: Tensor) -> Tensor:
        return tf.numpy_function(function, given, tf.float32)

    def floats(self, x: Tensor) -> Tensor:
        return tf.cast(x, tf.float32)


@tf.custom_gradient
def _passed(x: Tensor, value: Tensor) -> tuple[Tensor, object]:
    # a value from NumPy comes without a shape
    return tf.ensure_shape(value, x.shape), lambda upstream: (upstream, None)


def _spread(w: Tensor, dilations: Sequence[int]) -> Tensor:
    """A kernel (C, I, H, W) with the zeros of its dilation between its values."""
    for axis, step in zip((2, 3), dilations, strict=True):
        if step > 1:
            shape = [*w.shape]
            wide = tf.pad(
                tf.expand_dims(w, axis + 1), [(0, step - 1) if i == axis + 1 else (0, 0) for i in range(5)]
            )
            shape[axis] *= step
            w = tf.reshape(wide, shape)
            w = w[:, :, : shape[2] - step + 1] if axis == 2 else w[:, :, :, : shape[3] - step + 1]
    return w


def _channel_kernel(kernel: Tensor, group: int) -> Tensor:
    """A kernel (H, W, 1, C) of single channels as TensorFlow has it: (H, W, group, C / group)."""
    height, width, _, channels = kernel.shape
    return tf.reshape(kernel, (height, width, group, channels // group))


def _by_channel(x: Tensor, kernel: Tensor, strides: Sequence[int]) -> Tensor:
    """Every channel with kernels of its own, channels last; TensorFlow wants equal strides."""
    if strides[0] == strides[1]:
        return tf.nn.depthwise_conv2d(x, kernel, (1, *strides, 1), "VALID")
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "VALID")[:, :: strides[0], :: strides[1]]


_UNARY = {
    "Abs": tf.abs,
    "Neg": tf.negative,
    "Exp": tf.exp,
    "Log": tf.math.log,
    "Sqrt": tf.sqrt,
    "Erf": tf.math.erf,
    "Tanh": tf.tanh,
    "Sigmoid": tf.sigmoid,
    "Relu": tf.nn.relu,
    "Reciprocal": tf.math.reciprocal,
    "Softplus": tf.nn.softplus,
    "HardSwish": lambda x: x * tf.clip_by_value(x / 6.0 + 0.5, 0.0, 1.0),
    "Mish": lambda x: x * tf.tanh(tf.nn.softplus(x)),
}
