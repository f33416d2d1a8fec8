"""Attributes and constant operands that an operator cannot have are refused at loading, with the node and the fault."""

import numpy as np
import onnx
import pytest

import eightbit as eb
from eightbit.errors import LoadError
from eightbit.graph.source.load import load_graph
from eightbit.graph.source.operands import RULES
from tests.graph.graphs import normal, parse

X = "float[N,4,6,6] x"
WEIGHT, CODES = normal(4, 4, 3, 3), np.ones((4, 4, 3, 3), np.int8)
STEPS = np.abs(WEIGHT) + np.float32(0.1)
SCALE, ZERO = np.full(4, 0.1, np.float32), np.zeros(4, np.int8)
SOUND = {"w": WEIGHT, "b": normal(4), "k": np.array([1]), "s": np.float32(0.1), "z": np.uint8(0)}

FAULTS = [
    # windows
    ("Conv <strides=[1]> (x, w)", {}, r"strides \(1,\) has length 1, not 2"),
    ("Conv <strides=[0,1]> (x, w)", {}, "has a value below 1"),
    ("Conv <strides=[1,9223372036854775807]> (x, w)", {}, "or beyond 2,147,483,648"),
    ("Conv <pads=[1,1]> (x, w)", {}, r"pads \(1, 1\) has length 2, not 4"),
    ("Conv <pads=[1,1,-1,1]> (x, w)", {}, "has a value below 0"),
    ("Conv <dilations=[1,1,1]> (x, w)", {}, "dilations .* has length 3"),
    ("Conv <kernel_shape=[2,3]> (x, w)", {}, "does not fit its weight"),
    ('Conv <auto_pad="SAME"> (x, w)', {}, "auto_pad is 'SAME'"),
    ("MaxPool <kernel_shape=[2]> (x)", {}, "its input has 4 axes, its windows 1 and not 2"),
    ("AveragePool <kernel_shape=[2,2], pads=[1,1,1]> (x)", {}, "pads .* has length 3"),
    # layers
    ("Conv <group=0> (x, w)", {}, "group is 0"),
    ("Conv <group=3> (x, w)", {}, "4 rows of its weight do not divide into 3 groups"),
    ("Conv (x, w, b)", {"b": normal(3)}, r"its bias has shape \(3,\); it makes 4 channels"),
    ("Conv (x, w)", {"w": normal(4, 5, 3, 3)}, "does not fit an input of 4 channels"),
    ("Conv (x, w)", {"w": normal(4, 4)}, "a convolution needs at least three axes"),
    ("ConvTranspose (x, w, b)", {"w": normal(4, 2, 3, 3)}, r"its bias has shape \(4,\); it makes 2 channels"),
    ("ConvTranspose (x, w)", {"w": normal(3, 4, 3, 3)}, "does not fit an input of 4 channels"),
    ("BatchNormalization (x, b, b, b, g)", {"g": normal(3)}, "one number a channel is needed"),
    ("BatchNormalization (x, b, b, b, b)", {"b": normal(3)}, "one number a channel is needed"),
    ("Gemm (m, w)", {"w": normal(7)}, r"its input B has shape \(7,\), and is no matrix"),
    (
        "Gemm (m, w, b)",
        {"w": normal(6, 4), "b": normal(5)},
        r"its input C has shape \(5,\); there are 4 outputs",
    ),
    ("Gemm <transB=1> (m, w)", {"w": normal(6, 4)}, "whose lengths 6 and 4 do not fit"),
    ("MatMul (x, s)", {}, "it multiplies a scalar"),
    # axes and lengths
    ("Pad (x, k)", {"k": np.zeros(7, np.int64)}, r"its pads have shape \(7,\)"),
    ("Pad (x, k)", {"k": np.zeros(4, np.int64)}, "two for each axis are needed"),
    ('Pad <mode="round"> (x, k)', {"k": np.zeros(8, np.int64)}, "mode is 'round'; ONNX knows constant, edge"),
    ("Pad (x, k, b)", {"k": np.zeros(8, np.int64)}, r"its padding value has shape \(4,\)"),
    ("Slice (x, k, e)", {"e": np.array([1, 2])}, r"have shapes \(1,\), \(2,\)"),
    ("Slice (x, k, k, e)", {"e": np.array([4])}, r"axes \[4\] are none of its input of 4 axes"),
    ("Slice (x, k, k, k, e)", {"e": np.array([0])}, "a step of 0"),
    ("Squeeze (x, k)", {"k": np.array([9])}, r"axes \[9\]"),
    ("Unsqueeze (x, k)", {"k": np.array([5])}, r"axes \[5\] are none of its input of 5 axes"),
    ("Reshape (x, k)", {"k": np.array([-1, -1])}, "at most one -1"),
    ("Reshape (x, k)", {"k": np.array([[4]])}, "its target is"),
    ("Transpose <perm=[0,1,1,2]> (x)", {}, "does not reorder the axes"),
    ("Transpose <perm=[0,1]> (x)", {}, "does not reorder the axes"),
    ("Softmax <axis=4> (x)", {}, r"axes \[4\]"),
    ("Concat <axis=-5> (x, x)", {}, r"axes \[-5\]"),
    ("Flatten <axis=5> (x)", {}, "axis 5 is none"),
    ("Clip (x, b)", {}, r"its lower bound has shape \(4,\); one number is needed"),
    # codes
    ("QuantizeLinear (x, s, z)", {"s": normal(0)}, r"zero point has shape \(\), its scale \(0,\)"),
    ("QuantizeLinear (x, s)", {"s": normal(0)}, r"its scale has shape \(0,\): no element"),
    ("QuantizeLinear (x, s, z)", {"s": np.float32(0)}, "its scale is 0.0; it must be finite and above 0"),
    ("QuantizeLinear (x, s, z)", {"s": np.float32(np.inf)}, "its scale is inf"),
    ("QuantizeLinear (x, s, z)", {"s": np.float32(-1)}, "its scale is -1.0"),
    (
        "QuantizeLinear (x, s, z)",
        {"z": np.zeros(2, np.uint8)},
        r"zero point has shape \(2,\), its scale \(\)",
    ),
    ("QuantizeLinear <axis=1> (x, s)", {"s": SCALE[:3]}, "3 scales for 4 places on axis 1"),
    ("QuantizeLinear <axis=4> (x, s)", {"s": SCALE}, "axis 4 is none of its input of 4 axes"),
    ("QuantizeLinear (x, s)", {"s": SCALE[None]}, r"its scale has shape \(1, 4\)"),
    (
        "DequantizeLinear <axis=0> (q, s, z)",
        {"q": CODES, "s": SCALE, "z": ZERO[:2]},
        "its zero point has shape",
    ),
    (
        "DequantizeLinear <axis=0> (q, s)",
        {"q": CODES, "s": np.repeat(SCALE, 2)},
        "8 scales for 4 places on axis 0",
    ),
    (
        "DequantizeLinear <axis=0> (q, s)",
        {"q": CODES, "s": np.float32([1, np.inf, 1, 1])},
        "its scale is inf",
    ),
    ("DequantizeLinear <axis=1, block_size=3> (q, s)", {"q": CODES, "s": STEPS}, "blocks of 3"),
    ("DequantizeLinear <axis=0, block_size=-2> (q, s)", {"q": CODES, "s": STEPS}, "block_size is -2"),
    (
        "DequantizeLinear (q, s, z)",
        {"q": np.ones(4, np.int32), "z": np.int32(3)},
        "int32, and its zero point is not 0",
    ),
]

SOUNDS = [
    ("Conv <strides=[1,2], pads=[0,1,2,0], dilations=[1,1], kernel_shape=[3,3]> (x, w, b)", {}),
    ("Conv <group=2> (x, w)", {"w": normal(4, 2, 3, 3)}),
    ("ConvTranspose <group=2, output_padding=[0,0]> (x, w, b)", {"w": normal(4, 2, 3, 3)}),
    ("Gemm <transB=1> (m, w, s)", {"w": normal(4, 6)}),
    ("Gemm (m, w, b)", {"w": normal(6, 4)}),
    ("Pad (x, k, s, a)", {"k": np.array([1, 0]), "a": np.array([-1])}),
    ("Unsqueeze (x, k)", {"k": np.array([-5, 1])}),
    ("Flatten <axis=4> (x)", {}),
    ("QuantizeLinear (x, s, z)", {}),
    ("QuantizeLinear (x, s)", {"s": np.full(1, 0.1, np.float32)}),
    ("QuantizeLinear <axis=-3> (x, s)", {"s": SCALE}),
    ("DequantizeLinear <axis=0> (q, s, z)", {"q": CODES, "s": SCALE, "z": ZERO}),
    ("DequantizeLinear <axis=0> (q, s)", {"q": CODES, "s": np.float32([1, 0, 1, 1])}),  # a dead channel
    ("DequantizeLinear <axis=1, block_size=2> (q, s)", {"q": CODES, "s": STEPS[:, :2]}),
]


def model(node: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    known = SOUND | constants
    used = {n: a for n, a in known.items() if n in node.split("(")[-1].rstrip(")").split(", ")}
    kind = "uint8" if node.startswith("Quantize") else "float"
    return parse(f"g ({X}, float[N,6] m) => ({kind} y) {{ y = {node} }}", **used)


@pytest.mark.parametrize(("node", "constants", "fault"), FAULTS)
def test_each_fault_is_named_with_its_node(node, constants, fault):
    with pytest.raises(LoadError, match=rf"node '\w+' \({node.split()[0]}\): .*{fault}"):
        load_graph(model(node, constants))


@pytest.mark.parametrize(("node", "constants"), SOUNDS)
def test_what_an_operator_can_have_is_left_alone(node, constants):
    load_graph(model(node, constants))


@pytest.mark.parametrize(
    ("node", "constants", "fault"),
    [
        ("Pad (inner, k)", {"k": np.zeros(4, np.int64)}, "two for each axis"),
        ("Softmax <axis=9223372036854775807> (inner)", {}, "none of its input of 4 axes"),
        ("Conv (inner, w)", {"w": normal(4, 5, 3, 3)}, "does not fit an input of 4 channels"),
        ("Slice (inner, k, k, e)", {"e": np.array([4])}, r"axes \[4\] are none"),
    ],
)
def test_operands_are_looked_at_again_when_inner_shapes_are_known(node, constants, fault):
    proto = model(node.replace("inner", "x"), constants)
    proto.graph.node.insert(0, onnx.helper.make_node("Relu", ["x"], ["inner"], name="first"))
    proto.graph.node[1].input[0] = "inner"
    load_graph(proto)  # the file says nothing of the shape
    with pytest.raises(LoadError, match=fault):
        eb.load(proto)


def test_every_rule_is_tried():
    tried = {node.split()[0] for node, _, _ in FAULTS}
    assert set(RULES) - tried <= {"LpPool", "LogSoftmax", "Gather", "LayerNormalization", "Split"} | {
        "ConvInteger",
        "QLinearConv",
        "QLinearMatMul",
        "MatMulInteger",
    }
