"""Peak memory of calibrating EfficientNet-Lite0 on 64 and on 512 crops: the ratio should be near one.

    python -m benchmarks.memory MODEL.onnx CROPS RECIPE     # what each child process runs: prints its peak in bytes

Each calibration runs in a process of its own, because a peak is never taken back. The model comes from a file, so that
torch, which made it, weighs on neither.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import eightbit as eb
from benchmarks.figure import Figure
from benchmarks.usage import peak_bytes
from eightbit.course import zoo

MODEL = "efficientnet_lite0"
SIDE = 224
FEW, MANY = 64, 512
RECIPES = {"plain": eb.Recipe.plain(), "default": eb.Recipe()}
RUNS = 2
BOUND = 1.10


def crops(count: int) -> Iterator[NDArray[np.float32]]:
    """`count` random crops (1, 3, 224, 224) of photographs, made one at a time as a reader's generator would."""
    from skimage import data

    photographs = [data.astronaut(), data.chelsea(), data.coffee()]
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = photographs[i % len(photographs)]
        top, left = (rng.integers(0, length - SIDE + 1) for length in picture.shape[:2])
        yield zoo.preprocess_for(MODEL, picture[None, top : top + SIDE, left : left + SIDE])


def figures() -> Iterator[Figure]:
    """A ratio for the plainest recipe, which reads the data once, and for the default, which keeps them in a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        eb.load(zoo.load(MODEL), zoo.example(MODEL)).save(path)
        for name in RECIPES:
            few, many = (_in_child(path, count, name) for count in (FEW, MANY))
            yield Figure(
                f"calibration memory, {name}: {MANY} crops / {FEW} crops",
                many / few,
                BOUND,
                "x",
                f"{many / 1e6:.0f} / {few / 1e6:.0f} MB, whole process",
            )


def _in_child(path: Path, count: int, name: str) -> int:
    """The lower peak of `RUNS`: how the threads' small pieces come to lie in memory adds some 50 MB, now and then."""
    command = [sys.executable, "-m", "benchmarks.memory", str(path), str(count), name]
    return min(
        int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(RUNS)
    )


if __name__ == "__main__":
    file, number, recipe_name = sys.argv[1:]
    eb.quantize(eb.load(file), crops(int(number)), RECIPES[recipe_name])
    print(peak_bytes())
