"""What two networks of one shape say about the inputs of a layer, over the same positions.

In: a layer's input in the exact network, x, and in one whose earlier layers were changed, x'. Out: the moments of x',
and how the two go together: enough to find weights that give from x' what the layer gave from x.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.data.feeds import Feeds
from eightbit.quant.observe.layout import Layout
from eightbit.quant.observe.moments import ELEMENTS, PATCHES, Moments, summable


@dataclass(frozen=True)
class Seen:
    """What the data say about a layer's input x in the float network and x' in the other, over the same positions."""

    moments: Moments
    """Of x'."""
    cross: NDArray[np.float64]
    """The sum of x x'ᵀ, (G, K, K)."""
    total: NDArray[np.float64]
    """The sum of x, (G, K)."""

    @classmethod
    def of(cls, x: NDArray[np.float32], changed: NDArray[np.float32]) -> Seen:
        """Of positions (G, K, N) in both networks."""
        x, changed = summable(x), summable(changed)
        turned = changed.transpose(0, 2, 1)
        return cls(
            Moments.over(changed), np.matmul(x, turned).astype(np.float64), x.sum(axis=2, dtype=np.float64)
        )

    def add(self, other: Seen) -> Seen:
        """The sum of both, taken into this value's arrays."""
        np.add(self.cross, other.cross, out=self.cross)
        np.add(self.total, other.total, out=self.total)
        return replace(self, moments=self.moments.add(other.moments))

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of x, (G, K)."""
        return self.total / self.moments.count

    @property
    def centred(self) -> NDArray[np.float64]:
        """The sum of (x - m)(x' - m')ᵀ, (G, K, K), m and m' the means.

        It has the same floor on its diagonal as the moments of x'.
        """
        return self.cross - self.mean[:, :, None] * self.moments.total[:, None, :] + self.moments.floor


def seen_inputs(nodes: Sequence[ir.Node], inputs: Iterable[tuple[Feeds, Feeds]]) -> dict[str, Seen]:
    """What the data say about the inputs of some layers, from their tensors in both networks, sample by sample."""
    layouts = {str(node.name): Layout.of(node) for node in nodes}
    keys = {str(node.name): (str(node.inputs[0].name), layouts[str(node.name)].reading) for node in nodes}  # type: ignore[union-attr]
    readers = {key: layouts[name] for name, key in keys.items()}  # layers that read one tensor alike share
    found: dict[Any, Seen] = {}
    held: dict[Any, list[tuple[NDArray[np.float32], NDArray[np.float32]]]] = {key: [] for key in readers}

    def take_in(key: Any) -> None:
        one, other = (
            parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)
            for parts in zip(*held[key], strict=True)
        )
        seen = Seen.of(one, other)
        found[key] = found[key].add(seen) if key in found else seen
        held[key] = []

    for tensors in inputs:
        for key, layout in readers.items():
            one, other = (layout.positions(each[key[0]], thin=PATCHES) for each in tensors)
            held[key].append((one, other))
            if sum(x.size for x, _ in held[key]) >= ELEMENTS:
                take_in(key)
    for key in readers:
        if held[key]:
            take_in(key)
    return {name: found[key] for name, key in keys.items()}
