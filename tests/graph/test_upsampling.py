"""A transposed convolution as a convolution of phases and a shuffle: the same numbers, for every way of padding."""

import numpy as np
import pytest

import eightbit as eb
from eightbit.graph.prepare.upsampling import transposed_to_conv
from tests.graph.graphs import assert_same, graph, normal, ops, parse
from tests.strangers.walk import sqnr_db


def network(ways: str, weight: np.ndarray, *, after: str = "y = Relu (t)", size: str = "5,4"):
    """x (N, 4, ...) through a ConvTranspose with a bias to t, and on to y."""
    groups = 4 if "group=4" in ways else 2 if "group=2" in ways else 1
    lengths = ",".join("ABCD"[: weight.ndim - 1])
    text = f"g (float[N,4,{size}] x) => (float[N,{lengths}] y) {{ t = ConvTranspose <{ways}> (x, w, b)\n {after} }}"
    made = graph(text, w=weight, b=normal(weight.shape[1] * groups, seed=1))
    for node in made.graph:
        node.name = node.outputs[0].name
    return made


@pytest.mark.parametrize(
    ("ways", "shape", "made"),
    [
        ("strides=[2,2]", (4, 3, 2, 2), "Conv Relu DepthToSpace"),
        ("strides=[2,2], pads=[1,1,1,1]", (4, 3, 4, 4), "Conv Relu DepthToSpace Slice"),
        ("strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", (4, 3, 3, 3), "Conv Relu DepthToSpace Slice"),
        ("strides=[2,2], pads=[1,0,0,1], output_padding=[0,1], group=2", (4, 3, 3, 3), "Conv Relu DepthToSpace Slice"),
        ("strides=[2,2], pads=[1,1,1,1], group=4", (4, 1, 4, 4), "Conv Relu DepthToSpace Slice"),
        ("pads=[1,1,1,1]", (4, 3, 3, 3), "Conv Relu"),
        ("strides=[3,2], pads=[2,1,1,0]", (4, 3, 5, 4), "Conv Relu Reshape Transpose Reshape Slice"),
        ("strides=[3,3]", (4, 3, 2, 2), "Conv Relu DepthToSpace Slice"),  # places that no tap reaches
        ("strides=[2,2], output_padding=[1,1]", (4, 3, 1, 1), "Conv Relu DepthToSpace"),
    ],
)  # fmt: skip
def test_the_same_numbers(ways: str, shape: tuple[int, ...], made: str) -> None:
    before = network(ways, normal(*shape))
    after = before.clone()
    assert transposed_to_conv(after, lambda node: False) == 1
    assert ops(after) == made.split()
    assert [node.name for node in after.graph][:2] == ["t", "y"]
    assert_same(before, after)


@pytest.mark.parametrize(
    ("ways", "shape", "size"),
    [
        ("strides=[4], pads=[2,2]", (4, 3, 8), "7"),
        ("strides=[2,1,2], output_padding=[0,0,1]", (4, 3, 2, 3, 2), "3,4,2"),
    ],
)
def test_other_numbers_of_axes(ways: str, shape: tuple[int, ...], size: str) -> None:
    after = network(ways, normal(*shape), size=size, after="y = Abs (t)")
    before = after.clone()
    assert transposed_to_conv(after, lambda node: False) == 1
    assert ops(after)[-1] == "Abs"
    assert_same(before, after)


@pytest.mark.parametrize(
    ("ways", "size"),
    [
        ("dilations=[2,2]", "5,4"),
        ("output_shape=[9,8], strides=[2,2]", "5,4"),
        ('auto_pad="SAME_UPPER", strides=[2,2]', "5,4"),
        ("strides=[2,2]", "H,4"),
        ("pads=[3,3,3,3]", "5,4"),  # inputs that no output sees
    ],
)
def test_what_is_left_as_it_is(ways: str, size: str) -> None:
    model = network(ways, normal(4, 3, 2, 2), size=size)
    assert transposed_to_conv(model, lambda node: False) == 0
    assert ops(model) == ["ConvTranspose", "Relu"]


def test_it_runs_in_integers_everywhere_unless_a_recipe_keeps_it_in_float() -> None:
    """Behind a batch norm, in front of a Relu whose work the layer's saturation does."""
    text = """g (float[N,3,8,8] x) => (float[N,2,16,16] y) {
        a = Conv (x, v)  t = ConvTranspose <strides=[2,2]> (a, w)
        n = BatchNormalization (t, s, b, m, u)  r = Relu (n)  y = Conv (r, z) }"""
    ones = np.ones(4, np.float32)
    norm = {"s": 2 * ones, "b": ones / 4, "m": ones / 8, "u": ones}
    weights = {"v": normal(4, 3, 1, 1), "w": normal(4, 4, 2, 2, seed=1), "z": normal(2, 4, 1, 1, seed=2)}
    model = eb.load(parse(text, **weights, **norm))
    assert "ConvTranspose" in ops(model.ir)
    x = normal(8, 3, 8, 8, seed=3)
    q = eb.quantize(model, x, eb.Recipe.plain())
    assert not eb.inspect(q).islands
    assert ops(q.ir).count("Conv") == 3 and "Relu" not in ops(q.ir)
    np.testing.assert_array_equal(q.run(x, engine="numpy"), q(x))
    assert sqnr_db(model(x), q(x)) > 30
    assert eb.compare(model, q, x).layers
    name = next(node.name for node in model.ir.graph if node.op_type == "ConvTranspose")
    for pattern in (name, "op:ConvTranspose"):
        kept = eb.quantize(model, x, eb.Recipe(overrides={pattern: eb.FLOAT}))
        assert [island.name for island in eb.inspect(kept).islands][:1] == [name]
    weights_only = eb.quantize(model, recipe=eb.Recipe(activations=eb.FLOAT))
    assert "ConvTranspose" in ops(weights_only.ir)
