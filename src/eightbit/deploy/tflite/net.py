"""A network as a .tflite file holds it: tensors with quantization, operators with options; before it is bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from eightbit.deploy.layout.ports import Port

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Quantization:
    """`real = scale * (code - zero_point)`; more than one scale lie along `axis`."""

    scale: NDArray[np.float32]
    zero_point: int = 0
    axis: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the file; `data` of a constant one."""

    name: str
    shape: Shape
    dtype: np.dtype
    quantization: Quantization | None = None
    data: NDArray[np.generic] | None = None


@dataclass(frozen=True, eq=False)
class Operator:
    """`kind` is a BuiltinOperator of the schema; `options` the fields of its options, by the schema's names."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Net:
    """Operators in the order they run. The ports' buffers are names of tensors; nodes of the graph are `in_float`."""

    tensors: Mapping[str, Tensor]
    operators: tuple[Operator, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    in_float: tuple[str, ...] = ()
