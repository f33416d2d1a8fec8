"""The verifier: each fault found, named, and seen once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from eightbit.errors import EngineError
from eightbit.integer import program as p
from eightbit.integer.verify import accumulator_limits, verify


def tiny() -> p.Program:
    """x -> Quantize -> Gemm -> Dequantize -> y."""
    gemm = p.Gemm(
        "fc", ("x_q",), ("y_q",), np.ones((4, 2), np.int8), np.zeros(2, np.int32), np.full(2, 0.1, np.float32)
    )
    return p.Program(
        ("x",),
        ("y",),
        (p.Quantize("in", ("x",), ("x_q",)), gemm, p.Dequantize("out", ("y_q",), ("y",))),
        {"x_q": p.TensorInfo(np.float32(0.5), 3), "y_q": p.TensorInfo(np.float32(0.25), -128)},
    )


def with_op(program: p.Program, index: int, **changes: object) -> p.Program:
    ops = list(program.ops)
    ops[index] = replace(ops[index], **changes)  # type: ignore[arg-type]
    return replace(program, ops=tuple(ops))


def test_a_sound_program_passes() -> None:
    verify(tiny())


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (
            with_op(tiny(), 1, inputs=("nowhere",)),
            "fc: reads tensor 'nowhere', which nothing before it writes",
        ),
        (with_op(tiny(), 1, outputs=("x_q",)), "fc: writes tensor 'x_q', which exists already"),
        (replace(tiny(), outputs=("z",)), "output 'z' is written by no operation"),
        (replace(tiny(), tensors={"x_q": tiny().tensors["x_q"]}), "tensor 'y_q' holds codes, but its scale"),
        (
            replace(tiny(), tensors={**tiny().tensors, "x_q": p.TensorInfo(np.float32(0), 3)}),
            "tensor 'x_q' has scale 0.0; it must be finite, positive and normal",
        ),
        (
            replace(tiny(), tensors={**tiny().tensors, "x_q": p.TensorInfo(np.float32(1), 128)}),
            "tensor 'x_q' has zero point 128, outside [-128, 127]",
        ),
        (
            replace(tiny(), constants={"c": np.zeros(2, np.int32)}),
            "constant 'c' is int32; codes are int8 or int16",
        ),
        (with_op(tiny(), 1, bias=np.zeros(2, np.int64)), "fc: bias is int64, not int32"),
        (
            replace(
                tiny(),
                ops=(
                    tiny().ops[0],
                    p.Take("pick", ("x_q",), ("y_q",), 1, np.zeros(2, np.int32)),
                    tiny().ops[2],
                ),
                tensors=dict.fromkeys(("x_q", "y_q"), tiny().tensors["x_q"]),
            ),
            "pick: its index is int32, not int64",
        ),
        (
            with_op(tiny(), 1, bias=np.zeros(3, np.int32)),
            "fc: bias has shape (3,); there are 2 output channels",
        ),
        (
            with_op(tiny(), 1, weight_scale=np.array([0.1, np.inf], np.float32)),
            "fc: a weight scale is not finite",
        ),
        (
            with_op(tiny(), 1, bias=np.array([0, 2**31 - 1], np.int32)),
            "fc: channel 1 can reach an accumulator of 2,147,484,143, beyond int32; its bias is 2,147,483,647",
        ),
        (
            with_op(tiny(), 1, weight=np.full((140_000, 2), 127, np.int8)),
            "fc: channel 0 can reach an accumulator of",
        ),
    ],
)
def test_each_fault_is_named(program: p.Program, message: str) -> None:
    with pytest.raises(EngineError) as caught:
        verify(program)
    assert message in str(caught.value)


def test_all_faults_are_listed_at_once() -> None:
    program = replace(with_op(tiny(), 1, outputs=("x_q",)), outputs=("z",))
    with pytest.raises(EngineError) as caught:
        verify(program)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert lines[0] == "the integer program does not verify:"
    assert lines[1:] == [
        "  fc: writes tensor 'x_q', which exists already",
        "  out: reads tensor 'y_q', which nothing before it writes",
        "  output 'z' is written by no operation",
    ]


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (
            p.Lookup("t", ("x_q",), ("y_q",), np.zeros(255, np.int8), "Relu"),
            "t: its table is int8 (255,), not",
        ),
        (p.Concat("c", ("x_q", "x_q"), ("y_q",), 0, (None,)), "c: 2 inputs, 1 tables"),
        (
            p.Embedding("e", ("x",), ("y_q",), np.zeros((4, 2), np.float32), np.ones(4, np.float32)),
            "e: its table is float32 (4, 2), not a matrix of int8 or int16 codes",
        ),
        (
            p.Embedding("e", ("x",), ("y_q",), np.zeros((4, 2), np.int8), np.ones(2, np.float32)),
            "e: its scales are float32 (2,), not float32 (4,)",
        ),
        (
            p.Reshape("r", ("x_q",), ("y_q",), (-1,)),
            "r: carries codes of scale 0.5, zero point 3 into 'y_q' with 0.25",
        ),
    ],
)
def test_faults_of_other_operations(op: p.Op, message: str) -> None:
    program = tiny()
    with pytest.raises(EngineError) as caught:
        verify(replace(program, ops=(program.ops[0], op, program.ops[2])))
    assert message in str(caught.value)


def test_accumulator_limits_are_reached() -> None:
    """The bound is what the worst codes really sum to, not more."""
    rng = np.random.default_rng(0)
    weight, bias = rng.integers(-128, 128, (9, 5)).astype(np.int8), rng.integers(-99, 99, 5).astype(np.int32)
    op = p.Gemm("fc", ("x_q",), ("y_q",), weight, bias, np.ones(5, np.float32))
    low, high = accumulator_limits(op, p.TensorInfo(np.float32(1), 17))
    w = weight.astype(int)
    worst_high, worst_low = np.where(w > 0, 127, -128) - 17, np.where(w > 0, -128, 127) - 17
    np.testing.assert_array_equal(high, bias + (w * worst_high).sum(0))
    np.testing.assert_array_equal(low, bias + (w * worst_low).sum(0))


def test_the_last_safe_length() -> None:
    """K = 66,311 of weights 127 against codes 255 apart fits int32; one more does not."""
    zero = {**tiny().tensors, "x_q": p.TensorInfo(np.float32(0.5), -128)}
    verify(replace(with_op(tiny(), 1, weight=np.full((66_311, 2), 127, np.int8)), tensors=zero))
    with pytest.raises(EngineError, match="beyond int32"):
        verify(replace(with_op(tiny(), 1, weight=np.full((66_312, 2), 127, np.int8)), tensors=zero))
