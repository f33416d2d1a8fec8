"""What the figures draw, by its attributes alone: `plot` knows no report, so that reports can hold figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Row(Protocol):
    """The noise of one tensor, such as a `TensorError`."""

    @property
    def name(self) -> str:
        """The tensor."""

    @property
    def sqnr_db(self) -> float:
        """Signal to noise over all samples."""

    @property
    def by_sample(self) -> Sequence[float]:
        """The same for each sample apart."""


class Rows(Protocol):
    """Tensors in the order of the graph, such as a `Comparison`."""

    @property
    def layers(self) -> Sequence[Row]:
        """A row a tensor."""


class Grid(Protocol):
    """Scale and zero point of a tensor's codes."""

    @property
    def scale(self) -> float:
        """One step."""

    @property
    def zero_point(self) -> int:
        """The code of zero."""

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that a code stands for."""


class Spread(Protocol):
    """How the values of one tensor are spread, such as a `TensorHistogram`."""

    @property
    def name(self) -> str:
        """The tensor."""

    @property
    def grid(self) -> Grid:
        """Where its codes lie."""

    @property
    def edges(self) -> Sequence[float]:
        """Between the bins."""

    @property
    def before(self) -> Sequence[int]:
        """Float values in each bin."""

    @property
    def after(self) -> Sequence[int]:
        """Dequantized codes in each bin."""

    @property
    def below(self) -> int:
        """Float values under the first edge."""

    @property
    def above(self) -> int:
        """Float values over the last edge."""

    @property
    def float_range(self) -> tuple[float, float]:
        """What the float values span."""

    @property
    def clipped(self) -> float:
        """The share of them outside the grid."""


class Leads(Protocol):
    """Samples with the lead of their float answer and the noise on it, such as `Answers`."""

    @property
    def lead(self) -> NDArray[np.float64]:
        """(N,) logits."""

    @property
    def noise(self) -> NDArray[np.float64]:
        """(N,) logits."""

    @property
    def flipped(self) -> NDArray[np.bool_]:
        """(N,) where the answer changed."""


class Trial(Protocol):
    """One recipe that was tried."""

    @property
    def size(self) -> float:
        """Of the file, as a share of the float one."""

    @property
    def agreement(self) -> float:
        """With the float model, a share."""

    @property
    def drop(self) -> float | None:
        """Of the accuracy, a share."""


class Trials(Protocol):
    """A search for a recipe, such as a `Tuned`."""

    @property
    def target(self) -> Any:
        """Its budget: `drop`, `agreement` and `size`, each None or a limit."""

    @property
    def trials(self) -> Sequence[Trial]:
        """Everything tried."""

    @property
    def front(self) -> Sequence[Trial]:
        """Those that no other beats in both."""

    @property
    def chosen(self) -> Trial:
        """The one taken."""


class Source(Protocol):
    """One source of noise, such as a `Sensitive`."""

    @property
    def node(self) -> str:
        """The node that an override names."""

    @property
    def noise(self) -> Mapping[int, float]:
        """Power relative to the outputs, by bits."""

    def sqnr_db(self, bits: int) -> float:
        """SQNR of the outputs if this were the only source."""


class Sources(Protocol):
    """Every source of noise, such as a `Sensitivity`."""

    @property
    def sources(self) -> Sequence[Source]:
        """In the order of the graph."""

    @property
    def weights(self) -> Sequence[Source]:
        """Those that are weights."""

    @property
    def activations(self) -> Sequence[Source]:
        """Those that are activations."""

    def ordered(self, *, weights: int, activations: int) -> Sequence[Source]:
        """The noisiest first."""


class Block(Protocol):
    """Bytes that are needed from one step to another, such as a `Buffer`."""

    @property
    def name(self) -> str:
        """The tensor."""

    @property
    def size(self) -> int:
        """Bytes."""

    @property
    def first(self) -> int:
        """The step that writes them."""

    @property
    def last(self) -> int:
        """The step that reads them last."""


class Blocks(Protocol):
    """Where blocks lie, such as an `Arena`."""

    @property
    def buffers(self) -> Sequence[Block]:
        """The blocks."""

    @property
    def offsets(self) -> Mapping[str, int]:
        """Where each begins."""

    @property
    def size(self) -> int:
        """Bytes of them all."""

    @property
    def most_live(self) -> int:
        """The most bytes needed in one step."""


class Differences(Protocol):
    """How many integers of a tensor differ, such as a `TensorParity`."""

    @property
    def integers(self) -> int:
        """Compared."""

    @property
    def differing(self) -> int:
        """Of these."""


class Parity(Protocol):
    """One engine beside ONNX arithmetic, such as an `EngineParity`."""

    @property
    def title(self) -> str:
        """What it is called."""

    @property
    def every_tensor(self) -> bool:
        """Whether all tensors were compared, or the outputs alone."""

    @property
    def onnx(self) -> Sequence[Differences]:
        """Tensor by tensor, from the input to the output."""

    def shares(self) -> Sequence[float]:
        """Of all integers, by the size of their difference: 0, 1, 2, 3 codes and more."""
