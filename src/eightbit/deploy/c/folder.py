"""A quantized network as a folder of C: net.c, net.h, kernels, a self-test, a Makefile.

In: an integer program. Out: files that any C99 compiler makes code of, which gives the integers of the NumPy engine
in the same arithmetic. Chapter 18 reads them line by line.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np

from eightbit.arith.affine import dequantize
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.arena import Arena
from eightbit.deploy.c.names import Identifiers
from eightbit.deploy.c.prepare import plan_of
from eightbit.deploy.c.schedule import scheduled
from eightbit.deploy.c.text import Network, header, makefile, selftest, source
from eightbit.deploy.layout.shapes import input_shapes
from eightbit.errors import ExportError
from eightbit.files import write_whole
from eightbit.integer.engine import run
from eightbit.integer.program import Program, Quantize

VECTORS = 4
"""Of random codes, which the self-test holds where no data were given."""
KERNELS = ("eb_kernels.h", "eb_avx512.h")
"""What net.c includes."""


@dataclass(frozen=True, eq=False)
class CFolder:
    """What was written: where, and the arena that was planned; `print` shows it, `eightbit.plot.arena` draws it."""

    path: Path
    arena: Arena

    def __str__(self) -> str:
        return f"{self.path}: {self.arena}"


def network(program: Program, arithmetic: Arithmetic, name: str = "net") -> Network:
    """The program with everything planned; `name` is what its names in C begin with. Raises ExportError."""
    if Identifiers()(name) != name:
        raise ExportError(f"{name!r} is no name of C: use letters, digits and underscores, a letter first")
    return Network(name, *scheduled(plan_of(program, arithmetic)))


def write_c(
    program: Program,
    folder: str | os.PathLike[str],
    arithmetic: Arithmetic,
    *,
    name: str = "net",
    samples: Sequence[Mapping[str, np.ndarray]] | None = None,
) -> CFolder:
    """Write the folder, which is made if need be. `samples` are float feeds for the self-test, one sample each.

    Raises ExportError for a network that C cannot do (all reasons at once), and a place that cannot be written.
    """
    net = network(program, arithmetic, name)
    vectors = answers(net, program, random_samples(program) if samples is None else samples)
    texts = {f"{name}.h": header(net), f"{name}.c": source(net), "selftest.c": selftest(net, vectors)}
    texts |= {"Makefile": makefile(net), "eb_float.h": kernel_header("eb_float.h")} | kernels()
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise ExportError(f"cannot make the folder {path}: {cause.strerror or cause}") from cause
    for file, text in texts.items():
        write_whole(text.encode(), path / file)
    return CFolder(path, net.arena)


def kernel_header(file: str) -> str:
    """The text of a header that comes with the package."""
    return files("eightbit.deploy.c").joinpath(file).read_text()


def kernels() -> dict[str, str]:
    """The headers that net.c includes: name, text."""
    return {file: kernel_header(file) for file in KERNELS}


def answers(
    net: Network, program: Program, samples: Sequence[Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The codes of every port for each sample, by the NumPy engine; int8 (V, ...) by the name of the codes."""
    ports = (*net.plan.inputs, *net.plan.outputs)
    rows = [run(program, feeds, arithmetic=net.plan.arithmetic, keep=True) for feeds in samples]
    return {port.codes: np.stack([row[port.codes].reshape(port.shape) for row in rows]) for port in ports}


def random_samples(program: Program, count: int = VECTORS, seed: int = 0) -> list[Mapping[str, np.ndarray]]:
    """Floats whose codes are random, all 256 alike."""
    rng = np.random.default_rng(seed)
    readers = {op.inputs[0]: program.tensors[op.outputs[0]] for op in program.ops if isinstance(op, Quantize)}
    shapes = input_shapes(program)
    return [
        {
            name: dequantize(rng.integers(-128, 128, shape).astype(np.int8), readers[name].params)
            for name, shape in shapes.items()
        }
        for _ in range(count)
    ]
