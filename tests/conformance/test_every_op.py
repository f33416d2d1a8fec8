"""Every op of the newest opset between codes: placement, lowering and the report tell one story, and the engines agree.

ONNX's own node cases are put between an addition of the input to itself, which runs on codes, and a product with a
constant matrix, which wants codes. So the op stands where it is integer if it can be. Other inputs are signals in one
variant, constants in the other.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import eightbit as eb
from eightbit.deploy.sessions import OnnxRuntime, run_island
from eightbit.graph.forms import ROWS, Form, ops
from eightbit.integer.engine import run
from eightbit.integer.lower import lower
from eightbit.integer.lower.rules import RULES
from eightbit.model import in_float
from eightbit.quant.quantize import quantize_graph
from tests.conformance.test_node_suite import as_input, cases
from tests.strangers.walk import assert_equal

CHUNKS = 12
KNOWN = {s.name for s in onnx.defs.get_all_schemas() if s.domain == "" and not s.deprecated}
CODED = {"QuantizeLinear", "DequantizeLinear"}
"""A model that holds them is quantized already."""
EMPTY = "no value was seen; give at least one calibration sample in which it holds some"
INFINITE = "found NaN or Inf in an array of shape"
INFINITE_WEIGHT = "that are NaN or Inf; retrain or re-save it"
NOT_BACK = (
    "opset 28, in which ONNX Runtime has no QuantizeLinear, and an operator that ONNX cannot convert to 27"
)
BATCHWISE = "Batchwise recurrent operations (layout == 1) are not supported"
REFUSED: dict[str, tuple[str, ...]] = {
    "Acos": (INFINITE,),  # of the input's double, outside the domain
    "Asin": (INFINITE,),
    "Atanh": (INFINITE,),
    "Attention": (INFINITE, "attention_helper.h"),  # two cases for newer runtimes
    "Bernoulli": ("an implementation for RandomUniformLike(22)",),
    "Cast": (INFINITE_WEIGHT, "all its inputs are constant", "an implementation for Cast(25)"),
    "CastLike": (INFINITE_WEIGHT, EMPTY, "an implementation for Cast(25)"),
    "GRU": (BATCHWISE,),
    "LSTM": (BATCHWISE,),
    "MelWeightMatrix": ("upper_edge_hertz produces a mel triangle filter bank that is out of range",),
    "Mod": (INFINITE_WEIGHT, NOT_BACK),
    "OneHot": ("GEMM: Dimension mismatch",),  # its depth is a float, and doubled
    "Pow": ("an implementation for Pow(15)",),
    "RNN": (BATCHWISE,),
    "ReduceL1": (EMPTY,),
    "ReduceL2": (EMPTY,),
    "ReduceLogSum": (INFINITE,),  # of no number
    "ReduceLogSumExp": (INFINITE,),
    "ReduceMax": (INFINITE,),
    "ReduceMin": (INFINITE,),
    "ReduceProd": (EMPTY,),
    "ReduceSum": (EMPTY,),
    "ReduceSumSquare": (EMPTY,),
    "Reshape": (EMPTY,),
    "Resize": ("mode only supports", "MatMul dimension mismatch"),  # with its scales doubled, on all axes
    "RoiAlign": ("an implementation for RoiAlign(22)",),
    "Slice": (EMPTY,),
    "Scan": ("is a Scan of opset 8, which has a batch axis",),
    "SpaceToDepth": (NOT_BACK,),
    "Split": (EMPTY,),
    "SwiGLU": ("an implementation for Swish(24)",),
}
"""What `load`, a float run or `quantize` may say of an op's cases: nothing else, and each of it of one at least."""


def between_codes(case: Any, *, constants: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray]] | None:
    """The case's node called `it`, with codes on both sides; None if it has no float tensor on one of them."""
    graph = case.model.graph
    typed = all(v.type.HasField("tensor_type") for v in (*graph.input, *graph.output))
    if len(graph.node) != 1 or not typed:
        return None
    given = zip(graph.input, case.data_sets[0][0], strict=False)
    arrays = {value.name: np.asarray(as_input(data)) for value, data in given}
    floats = [v.name for v in graph.input if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    outputs = [v for v in graph.output if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    if not floats or not outputs:
        return None
    signals = floats[:1] if constants else floats
    weights = [numpy_helper.from_array(a, name) for name, a in arrays.items() if name not in signals]
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[0])
    node.name, node.input[:] = "it", [f"{n}_twice" if n in signals else n for n in node.input]
    weights += [numpy_helper.from_array(arrays[n], f"{n}_again") for n in signals]
    nodes = [
        *(helper.make_node("Add", [n, f"{n}_again"], [f"{n}_twice"], f"{n}_twice") for n in signals),
        node,
    ]
    ends = []
    for value in graph.output:
        shape = [d.dim_value for d in value.type.tensor_type.shape.dim]
        if value in outputs and shape and shape[-1]:
            matrix = np.linspace(-1, 1, 2 * shape[-1], dtype=np.float32).reshape(shape[-1], 2)
            weights.append(numpy_helper.from_array(matrix, f"{value.name}_w"))
            nodes.append(
                helper.make_node(
                    "MatMul", [value.name, f"{value.name}_w"], [f"{value.name}_p"], f"{value.name}_p"
                )
            )
            value = helper.make_tensor_value_info(f"{value.name}_p", TensorProto.FLOAT, [*shape[:-1], 2])
        ends.append(value)
    inputs = [v for v in graph.input if v.name in signals]
    body = helper.make_graph(nodes, "between", inputs, ends, weights)
    version = max(4, case.model.ir_version)  # before, initializers had to be inputs as well
    model = helper.make_model(body, opset_imports=case.model.opset_import, ir_version=version)
    model.functions.extend(case.model.functions)
    return model, {name: arrays[name] for name in signals}


def outcome(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> tuple[str, set[str]]:
    """What is wrong ("" if nothing is), and the ops that ran in integers. Raises EightbitError for what is refused."""
    model = eb.load(proto)
    model(feeds)
    graph, placement, _ = quantize_graph(model.ir, [feeds], eb.Recipe.plain())
    program = lower(graph)
    listed = {i.node for i in placement.islands} | {*placement.functions}
    floats = {i.node for i in in_float(graph, program)}
    integer = {node.op_type for node in model.ir.graph if node.name not in floats}
    if listed != floats:
        return (
            f"listed {sorted(listed - floats)}, which do not run in float; {sorted(floats - listed)} do",
            integer,
        )
    shown = {node.name for node in eb.inspect(eb.QuantizedModel(graph)).islands}
    if shown != floats:
        return f"inspect shows {sorted(shown)}, in float are {sorted(floats)}", integer
    found, right = run(program, feeds, island=run_island), OnnxRuntime(graph).run(feeds)
    try:
        assert_equal(tuple(found.values()), tuple(right.values()), "engines")
    except AssertionError as error:
        return f"engines: {error}", integer
    return "", integer


def story(op: str, *, most: int | None = None) -> tuple[dict[str, str], set[str], set[str]]:
    """What is wrong, by case, the ops that ran in integers, and the reasons of REFUSED that were given.

    Of `most` cases of `op`, or all.
    """
    wrong, integer, given = {}, set(), set()
    for case in by_op()[op][:most]:
        for constants in (False, True):
            made = between_codes(case, constants=constants)
            if made is None:
                continue
            try:
                found, ran = outcome(*made)
            except eb.EightbitError as error:
                known = {why for why in REFUSED.get(op, ()) if why in str(error)}
                found, ran = "" if known else f"refused: {error}", set()
                given |= known
            integer |= ran
            if found:
                wrong[f"{case.name}, constants: {constants}"] = found
    return wrong, integer, given


@cache
def by_op() -> dict[str, list[Any]]:
    """The cases of one node, by its op."""
    found: dict[str, list[Any]] = {}
    for case in cases():
        if (
            len(case.model.graph.node) == 1 and "training" not in case.name
        ):  # a Dropout in training draws lots
            found.setdefault(case.model.graph.node[0].op_type, []).append(case)
    return found


WITH_FORM = sorted(ops(*(form for form in Form if form is not Form.FUNCTION)))
PREPARED = {"Squeeze": "Reshape", "Unsqueeze": "Reshape"}
"""What `prepare` makes of an op whose lengths are known."""


@pytest.mark.parametrize("op", WITH_FORM)
def test_ops_with_an_integer_form_run_in_integers(op: str) -> None:
    wrong, integer, _ = story(op, most=2)
    assert wrong == {}
    assert (
        op == "Pad" or PREPARED.get(op, op) in integer
    )  # ONNX's cases pad integers, or with other numbers than 0


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_placement_lowering_and_the_report_agree_on_every_op(chunk: int) -> None:
    wrong, unsaid = {}, {}
    for op in sorted(set(by_op()) & KNOWN - CODED)[chunk::CHUNKS]:
        found, _, given = story(op)
        wrong |= found
        if set(REFUSED.get(op, ())) != given:
            unsaid[op] = set(REFUSED[op]) - given
    assert (wrong, unsaid) == ({}, {})


def test_the_table_and_the_rules_of_lowering_hold_the_same_ops() -> None:
    assert set(RULES) == set(WITH_FORM)
    assert set(ROWS) <= KNOWN
