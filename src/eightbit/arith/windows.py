"""Sliding windows along an axis, by their lengths: how many there are, and what padding they need.

A convolution or a pool puts windows of `kernel` taps, `dilation` elements apart, every `stride` elements over an axis
that is padded by `pads` (before, after). ONNX writes the pads of several axes as all begins, then all ends; `by_axis`
takes them apart.
"""

from __future__ import annotations

from collections.abc import Sequence

Axis = tuple[int, int, int, tuple[int, int], int]
"""Length, kernel, stride, pads and dilation: the arguments of the functions below."""


def by_axis(
    lengths: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> list[Axis]:
    """What windows over several axes are along each; `pads` are begins, then ends.

    >>> by_axis((9, 8), (3, 2), (2, 1), (0, 1, 2, 1), (1, 1))
    [(9, 3, 2, (0, 2), 1), (8, 2, 1, (1, 1), 1)]
    """
    ends = zip(pads[: len(kernel)], pads[len(kernel) :], strict=True)
    return list(zip(lengths, kernel, strides, ends, dilations, strict=True))


def window_count(
    length: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int = 1, *, ceil: bool = False
) -> int:
    """Number of windows along an axis (ONNX Conv and pooling).

    In `ceil` mode one more hangs over the end, unless it would start in the end padding.

    >>> window_count(8, 3, 2, (0, 0)), window_count(8, 3, 2, (0, 0), ceil=True)
    (3, 4)
    """
    room = length + sum(pads) - _span(kernel, dilation)
    if not ceil:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= length + pads[0] else count


def reached_pads(
    length: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int = 1, *, ceil: bool = False
) -> tuple[int, int]:
    """`pads`, with as much more at the end as the last window of ceil mode reaches.

    >>> reached_pads(8, 3, 2, (0, 0), ceil=True)
    (0, 1)
    """
    count = window_count(length, kernel, stride, pads, dilation, ceil=ceil)
    reach = (count - 1) * stride + _span(kernel, dilation)
    return pads[0], max(pads[1], reach - length - pads[0])


def same_pads(
    length: int | None, kernel: int, stride: int, dilation: int = 1, *, upper: bool
) -> tuple[int, int] | None:
    """The padding of ONNX's auto_pad SAME: as many windows as `length / stride`, rounded up.

    An odd element goes to the end if `upper`, else to the beginning. With a stride of 1 the length does not matter;
    otherwise None for one that is not known.

    >>> same_pads(10, 4, 2, upper=True), same_pads(None, 4, 1, upper=False), same_pads(None, 4, 2, upper=True)
    ((1, 1), (2, 1), None)
    """
    if stride == 1:
        total = _span(kernel, dilation) - 1
    elif length is None:
        return None
    else:
        total = max(0, (-(-length // stride) - 1) * stride + _span(kernel, dilation) - length)
    less, more = total // 2, total - total // 2
    return (less, more) if upper else (more, less)


def _span(kernel: int, dilation: int) -> int:
    """Elements from the first tap of a window to the last."""
    return (kernel - 1) * dilation + 1
