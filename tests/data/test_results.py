"""What a model gives back is of the kind that it was given."""

import copy

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

import eightbit as eb
from eightbit.data.results import like
from eightbit.graph.source.quiet import silence
from tests.small_net import CLASSES, images, small_net

with silence():
    import tensorflow as tf


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


@pytest.fixture(scope="module")
def q(model: eb.Model) -> eb.QuantizedModel:
    return eb.quantize(model, images(8))


CALLS = {
    "float": lambda model, q: model,
    "int8": lambda model, q: q,
    "numpy engine": lambda model, q: lambda *x: q.run(*x, engine="numpy"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (torch.from_numpy, torch.Tensor),
        (lambda x: torch.from_numpy(x).requires_grad_(), torch.Tensor),
        (tf.constant, tf.Tensor),
        (tf.Variable, tf.Tensor),
        (lambda x: x, np.ndarray),
        (lambda x: {"image": torch.from_numpy(x)}, torch.Tensor),
        (lambda x: (tf.constant(x),), tf.Tensor),
    ],
)
def test_tensors_come_back_for_tensors(model, q, call, given, kind):
    run, x = call(model, q), images(3)
    found = run(given(x))
    assert isinstance(found, kind) and tuple(found.shape) == (len(x), CLASSES)
    np.testing.assert_array_equal(np.asarray(found), run(x))


def two_outputs() -> eb.Model:
    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 3]) for n in names]
        for names in (("a", "b"), ("sum", "pass"))
    ]
    nodes = [
        helper.make_node("Add", ["a", "b"], ["sum"], name="add"),
        helper.make_node("Identity", ["b"], ["pass"], name="pass"),
    ]
    graph = helper.make_graph(nodes, "two", *ends)
    return eb.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))


def test_every_output_comes_back_so_where_one_input_is_a_tensor():
    model = two_outputs()
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 2, np.float32)
    for given in ((torch.from_numpy(a), b), (a, torch.from_numpy(b)), ({"a": a, "b": torch.from_numpy(b)},)):
        total, same = model(*given)
        assert isinstance(total, torch.Tensor) and isinstance(same, torch.Tensor)
        np.testing.assert_array_equal(total.numpy(), a + b)
        np.testing.assert_array_equal(same.numpy(), b)
    total, same = model(a, b)
    assert type(total) is type(same) is np.ndarray


def test_a_tensor_cannot_be_written_through_to_what_is_read_only():
    array = np.arange(3, dtype=np.float32)
    array.setflags(write=False)
    found = like(torch.zeros(1))(array)
    found += 1
    assert array.tolist() == [0, 1, 2]


def test_text_stays_an_array_and_scalars_become_tensors():
    text = np.array(["a", "b"])
    assert like(torch.zeros(1))(text) is text and like(tf.zeros(1))(text) is text
    assert like([{"x": torch.zeros(1)}])(np.asarray(3.0)).shape == ()


def test_outputs_are_told_like_inputs(model, q, tmp_path):
    for m in (model, q, eb.open(q.save(tmp_path / "q.onnx"))):
        (output,) = m.outputs
        assert (output.name, output.dtype, output.shape) == ("logits", np.dtype("float32"), (None, CLASSES))
    assert [str(s) for s in two_outputs().outputs] == ["sum: float32 (?, 3)", "pass: float32 (?, 3)"]


def test_an_output_without_a_rank_is_named(model):
    bare = copy.deepcopy(model)
    bare.ir.graph.outputs[0].shape = None
    with pytest.raises(eb.LoadError, match="graph output 'logits' has no dtype or rank; export"):
        bare.outputs  # noqa: B018
