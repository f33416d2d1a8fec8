"""The multiplier of family A: float32, and in ONNX Runtime's order. The engine rounds by the book's functions alone."""

from pathlib import Path

import numpy as np
import pytest

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.integer import engine
from eightbit.integer.engine.requantize import requantizer
from eightbit.integer.program import TensorInfo


def codes(scales: tuple[np.float32, ...], acc: np.ndarray) -> np.ndarray:
    s_x, s_w, s_y = scales
    out = np.empty(acc.shape, np.int8)
    y = TensorInfo(s_y, 0)
    requantizer((s_x, np.asarray([s_w], np.float32), s_y), y, Arithmetic.ONNX)(acc.astype(np.float64), out)
    return out


def orders(scales: tuple[np.float32, ...]) -> tuple[np.float32, np.float32, np.float32]:
    """(s_x s_w) / s_y as the runtime has it, s_x (s_w / s_y), and the double quotient rounded once."""
    s_x, s_w, s_y = scales
    return (
        (s_x * s_w) / s_y,
        s_x * (s_w / s_y),
        np.float32(np.float64(s_x) * np.float64(s_w) / np.float64(s_y)),
    )


def a_tie_that_tells(seed: int) -> tuple[tuple[np.float32, ...], int]:
    """Scales, and an accumulator that the three orders send to different codes."""
    rng = np.random.default_rng(seed)
    while True:
        scales = tuple(np.float32(v) for v in rng.uniform(0.001, 0.2, 3))
        multipliers = orders(scales)
        if len(set(multipliers[:2])) == 1 or multipliers[0] == multipliers[2]:
            continue
        for target in np.arange(0.5, 120.5):
            for acc in {int(target / multipliers[0]) + step for step in (-1, 0, 1)}:
                rounded = [int(np.rint(np.float32(acc) * m)) for m in multipliers]
                if rounded[0] not in rounded[1:] and abs(rounded[0]) < 127:
                    return scales, acc


@pytest.mark.parametrize("seed", range(3))
def test_the_scales_are_multiplied_first_and_all_in_float32(seed: int):
    scales, acc = a_tie_that_tells(seed)
    expected = int(np.rint(np.float32(acc) * ((scales[0] * scales[1]) / scales[2])))
    assert codes(scales, np.array([[acc]])).item() == expected


OWN_ROUNDING = {"dynamic_gemm.py", "softmax.py"}
"""DynamicQuantizeLinear and QLinearSoftmax round by formulas that no other operation has."""


def test_accumulators_are_rounded_by_the_functions_of_the_book():
    """`arith.fixedpoint` is derived in chapter 3 and tested by itself: it must be what runs."""
    files = Path(str(engine.__file__)).parent.glob("*.py")
    rounding = {f.name for f in files if any(f"np.{name}(" in f.read_text() for name in ("rint", "round"))}
    assert rounding == OWN_ROUNDING
