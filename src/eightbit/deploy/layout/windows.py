"""Windows over an image with its channels last: the geometry that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eightbit.deploy.layout.views import View


@dataclass(frozen=True)
class Windows:
    """Lengths along height and width; a single axis is the width of an image one pixel high."""

    batch: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    begin: tuple[int, int]
    dilations: tuple[int, int]

    @classmethod
    def of(
        cls,
        x: View,
        y: View,
        kernel: Sequence[int],
        strides: Sequence[int],
        pads: Sequence[int],
        dilations: Sequence[int],
    ) -> Windows:
        """From (N, C, L) or (N, C, H, W) to such a shape."""
        return cls(
            x.shape[0],
            _two(x.shape[2:]),
            _two(y.shape[2:]),
            _two(kernel),
            _two(strides),
            _two(pads[: len(kernel)], 0),
            _two(dilations),
        )

    def fields(self) -> dict[str, int]:
        """As the kernels' structs name them."""
        pairs = {
            "in": self.in_size,
            "out": self.out_size,
            "kernel": self.kernel,
            "stride": self.strides,
            "dilation": self.dilations,
        }
        found = {f"{name}_{axis}": pair[i] for name, pair in pairs.items() for i, axis in enumerate("hw")}
        return {"batch": self.batch, **found, "top": self.begin[0], "left": self.begin[1]}

    def some_outside(self) -> bool:
        """Whether a window holds no pixel of the image."""
        for i in (0, 1):
            for place in range(self.out_size[i]):
                first = place * self.strides[i] - self.begin[i]
                taps = (first + k * self.dilations[i] for k in range(self.kernel[i]))
                if not any(0 <= tap < self.in_size[i] for tap in taps):
                    return True
        return False

    def gaps(self, x: View, in_channels: int, out_channels: int) -> dict[str, int]:
        """How many bytes before `x` the output must begin, so that no row is overwritten that is still to be read.

        While row r is written, and before the next, the input is read from row `r * stride - top` on; so
        `(r + 1) out_row - gap <= (r * stride - top) in_row` for all r. Images after the first would need more.
        """
        if self.batch != 1:
            return {}
        in_row, out_row = self.in_size[1] * in_channels, self.out_size[1] * out_channels
        needed = (
            (r + 1) * out_row - in_row * min(self.in_size[0], max(0, r * self.strides[0] - self.begin[0]))
            for r in range(self.out_size[0])
        )
        return {x.buffer: max(needed, default=0)}


def _two(lengths: Sequence[int], first: int = 1) -> tuple[int, int]:
    return (first, lengths[0]) if len(lengths) == 1 else (lengths[0], lengths[1])
