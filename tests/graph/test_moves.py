"""What moves ask for, read off their nodes; and the nodes that are restated so that codes can be carried."""

import numpy as np
import onnx_ir as ir
import pytest

import eightbit as eb
from eightbit.graph import moves
from eightbit.graph.forms import refusal
from eightbit.graph.prepare.fold import prepare
from tests.graph.graphs import assert_same, graph, normal, ops

INTS = {
    "two": np.array([2, 2]),
    "zero": np.array(0),
    "wide": np.array([1, 3, 1, 1]),
    "growing": np.array([3, 1, 1, 1]),
    "bigger": np.array([1, 2, 8, 8]),
    "twice": np.array([1, 1, 2, 2], np.float32),
    "tall": np.array([1, 1, 3, 1], np.float32),
    "axes": np.array([2, -1]),
}


def node(body: str, opset: int = 21):
    """The last node of a graph that reads x (N, 4, 2, 6) and integers k of any kind."""
    used = {name: array for name, array in INTS.items() if f"{name})" in body or f"{name}," in body}
    text = f"g (float[N,4,2,6] x, int64[M] k) => (float[A,B,C,D] y) {{ {body} }}"
    return list(graph(text, opset=opset, **used).graph)[-1]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("y = Gather <axis=1> (x, k)", "its indices are not constant"),
        ("y = Tile (x, k)", "its repeats are not constant"),
        ("y = Tile (x, growing)", "the length of an axis that it repeats is not known"),
        ("y = Expand (x, k)", "its shape is not constant"),
        ("y, z = Split <axis=1> (x, two)", "one of its outputs is left out"),
        ("y = ReduceMax (x, k)", "its axes are not constant"),
        ("y = Resize (x, , , k)", "its scales or sizes are not constant"),
        ('y = Resize <mode="linear"> (x, , twice)', "it interpolates, in mode linear, half_pixel"),
        (
            'y = Resize <coordinate_transformation_mode="tf_crop_and_resize"> (x, , twice)',
            "it interpolates, in mode nearest, tf_crop_and_resize",
        ),
        ('y = Resize <keep_aspect_ratio_policy="not_larger"> (x, , , bigger)', "it keeps the aspect ratio"),
        ("y = Resize (x, , , bigger)", "the length of an axis that it resizes is not known"),
    ],
)
def test_what_is_not_known_is_said(body: str, why: str) -> None:
    assert why in (refusal(node(body)) or "")


def test_what_is_known_is_read() -> None:
    assert refusal(node("y = Gather <axis=1> (x, two)")) is None
    resized = moves.picks(node('y = Resize <nearest_mode="floor"> (x, , tall)'))
    assert not isinstance(resized, str)
    ((axis, index),) = resized.taken
    assert (axis, index.tolist()) == (2, [0, 0, 0, 0, 1, 1])  # floor((i + 1/2) / 3 - 1/2), but not below 0
    assert moves.reduced(node("y = ReduceMax (x, axes)")) == (2, 3)
    assert moves.reduced(node("y = ReduceMax (x)")) == (0, 1, 2, 3)
    assert moves.reduced(node("y = ReduceMax <noop_with_empty_axes=1> (x)")) == ()
    assert moves.parts(node("y, z = Split <axis=1> (x, k)")) == "its lengths are not constant"
    assert moves.parts(node("y, z, w = Split <axis=-1, num_outputs=3> (x)")) == (-1, ((0, 2), (2, 4), (4, 6)))


RESTATED = {
    "SpaceToDepth <blocksize=2> (x)": ["Reshape", "Transpose", "Reshape"],
    "GlobalMaxPool (x)": ["ReduceMax"],
}


@pytest.mark.parametrize("body", RESTATED)
def test_what_onnx_runtime_has_in_float_alone_is_restated(body: str) -> None:
    before = graph(f"g (float[N,4,2,6] x) => (float[N,B,C,D] y) {{ y = {body} }}")
    after = prepare(before)
    assert ops(after) == RESTATED[body]
    assert_same(before, after)


def test_space_of_unknown_size_stays() -> None:
    before = graph("g (float[N,4,H,6] x) => (float[N,B,C,D] y) { y = SpaceToDepth <blocksize=2> (x) }")
    assert ops(prepare(before)) == ["SpaceToDepth"]


def test_a_split_that_is_read_in_part_is_slices() -> None:
    text = "g (float[N,6,2] x) => (float[N,B,C] y, float[N,D,E] w) { y, z, w = Split <axis=1> (x, n) }"
    before = graph(text, n=np.array([1, 2, 3]))
    after = prepare(before)
    assert ops(after) == ["Slice", "Slice"]
    assert_same(before, after)
    whole = "g (float[N,6,2] x) => (float[N,B,C] y, float[N,D,E] w) { y, w = Split <axis=1> (x, n) }"
    assert ops(prepare(graph(whole, n=np.array([2, 4])))) == ["Split"]


def test_a_table_that_ids_pick_from_is_no_move() -> None:
    small = graph("g (int64[N] k) => (float[N,B] y) { y = Gather (w, k) }", w=normal(3, 4))
    assert refusal(list(small.graph)[-1]) == "what it reads from is constant"


def test_one_slope_for_every_channel_is_a_leaky_relu() -> None:
    text = "g (float[N,3,2,2] x) => (float[N,3,2,2] y) { y = PRelu (x, s) }"
    before = graph(text, s=np.full((3, 1, 1), 0.1, np.float32))
    after = prepare(before)
    assert ops(after) == ["LeakyRelu"]
    assert_same(before, after)
    assert ops(prepare(graph(text, s=normal(3, 1, 1)))) == ["PRelu"]


def test_what_a_layer_makes_is_subtracted_by_its_weights() -> None:
    """Unless somebody else reads it; a weight that layers share is negated for one of them alone."""
    text = """g (float[N,3,4,4] x) => (float[N,2,4,4] y) {
        a = Conv (x, w, b)  c = Relu (a)  d = Conv (x, w, b)  e = Sub (c, d)  y = Sub (e, c) }"""
    before = graph(text, w=normal(2, 3, 1, 1), b=normal(2))
    after = prepare(before)
    assert ops(after) == ["Conv", "Relu", "Conv", "Add", "Sub"]
    assert_same(before, after)
    q = eb.quantize(eb.load(ir.to_proto(before)), normal(4, 3, 4, 4), eb.Recipe.plain())
    assert [island.op for island in eb.inspect(q).islands] == ["Sub"]
