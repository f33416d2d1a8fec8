"""Models copy and pickle, after their first call as before it, however deep their graph is."""

import copy
import pickle
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import eightbit as eb
from eightbit.graph.pickling import HoldsGraph
from tests.small_net import images, small_net

DUPLICATES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda m: pickle.loads(pickle.dumps(m)),
}


@pytest.fixture(scope="module")
def model() -> eb.Model:
    return eb.load(small_net())


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_a_float_model_runs_alike(duplicate, used):
    model, x = eb.load(small_net()), images(3)
    if used:
        model(x)
    other = duplicate(model)
    assert other is not model and type(other) is eb.Model
    assert (other.inputs, other.outputs) == (model.inputs, model.outputs)
    np.testing.assert_array_equal(other(x), model(x))


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
@pytest.mark.parametrize("bits", [8, 4])
def test_an_int8_model_runs_alike_and_keeps_its_report(model, duplicate, used, bits, tmp_path: Path):
    q, x = eb.quantize(model, images(8), eb.Recipe(eb.Weights(bits=bits))), images(3)
    if used:
        q(x)
        q.run(x, engine="numpy")
    other = duplicate(q)
    assert other.report == q.report and other.report.params["image"] == q.report.params["image"]
    np.testing.assert_array_equal(other(x), q(x))
    np.testing.assert_array_equal(other.run(x, engine="numpy"), q(x))
    assert other.save(tmp_path / "a.onnx").read_bytes() == q.save(tmp_path / "b.onnx").read_bytes()
    assert eb.compare(model, other, x) == eb.compare(model, q, x)


def test_a_deep_copy_has_a_graph_of_its_own(model):
    other = copy.deepcopy(model)
    assert other.ir is not model.ir and copy.copy(model).ir is model.ir


@pytest.mark.parametrize("duplicate", DUPLICATES.values(), ids=DUPLICATES)
def test_a_deep_network_is_no_deep_recursion(duplicate):
    depth = 2000
    nodes = [helper.make_node("Add", [f"t{i}", "c"], [f"t{i + 1}"], name=f"n{i}") for i in range(depth)]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", 3])] for n in ("t0", f"t{depth}")]
    graph = helper.make_graph(nodes, "deep", *ends, [numpy_helper.from_array(np.ones(3, np.float32), "c")])
    model = eb.Model(
        eb.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)).ir
    )
    x = np.zeros((1, 3), np.float32)
    np.testing.assert_array_equal(duplicate(model)(x), model(x))


def test_what_was_made_on_first_use_stays_behind(model):
    q = eb.quantize(model, images(4))
    q(images(1))
    assert q.program
    assert set(q.__dict__) == {"ir", "report", "_started", "program"}
    assert set(copy.copy(q).__dict__) == set(pickle.loads(pickle.dumps(q)).__dict__) == {"ir", "report"}
    assert isinstance(q, HoldsGraph)


def test_models_of_an_opened_file_and_of_weights_alone_pickle(model, tmp_path: Path):
    x = images(2)
    q = eb.quantize(model, images(4), eb.Recipe(eb.Weights(bits=4), eb.FLOAT))
    opened = eb.open(q.save(tmp_path / "q.onnx"))
    again = pickle.loads(pickle.dumps(opened))
    np.testing.assert_array_equal(again(x), q(x))
    onnx.checker.check_model(onnx.load(again.save(tmp_path / "again.onnx")))
