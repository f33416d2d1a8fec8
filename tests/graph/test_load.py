"""ONNX files from strangers: what is accepted, and that each refusal names its reason."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from eightbit.errors import EngineError, LoadError
from eightbit.graph.run import FloatSession, to_bytes
from eightbit.graph.source import onnx_file
from eightbit.graph.source.load import load_graph
from tests.graph.graphs import normal, parse

BODY = "g (float[N,3] x) => (float[N,4] y) { y = MatMul(x, w) }"


def dense(weight: np.ndarray | None = None, body: str = BODY, opset: int = 21) -> onnx.ModelProto:
    return parse(body, opset=opset, w=normal(3, 4) if weight is None else weight)


def saved(folder: Path, proto: onnx.ModelProto) -> Path:
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    return folder / "m.onnx"


def test_path_string_proto_and_ir_give_the_same_graph(tmp_path: Path) -> None:
    path = saved(tmp_path, dense())
    bytes_of = {to_bytes(load_graph(s)) for s in (path, str(path), dense(), load_graph(dense()))}
    assert len(bytes_of) == 1


def test_the_source_proto_is_not_changed_and_name_is_used() -> None:
    proto = dense()
    before = proto.SerializeToString(deterministic=True)
    assert load_graph(proto, name="net").graph.name == "net"
    assert proto.SerializeToString(deterministic=True) == before


def test_exporter_metadata_are_dropped_and_nodes_get_unique_names() -> None:
    proto = parse("g (float[3] x) => (float[3] y) { a = Relu(x) y = Relu(a) }")
    proto.doc_string = proto.graph.node[0].doc_string = "long" * 100
    proto.graph.node[0].name = proto.graph.node[1].name = "same"
    model = load_graph(proto)
    assert [n.name for n in model.graph] == ["same", "same_1"]
    assert b"longlong" not in to_bytes(model)


def test_old_opsets_are_converted() -> None:
    proto = dense(
        body="g (float[N,3] x) => (float[N,4] y) { c = MatMul(x, w) y = Dropout<ratio=0.5>(c) }", opset=10
    )
    model = load_graph(proto)
    x = normal(2, 3, seed=1)
    # one dot product of length 3: a few float32 roundings of values near 1
    np.testing.assert_allclose(FloatSession(model).run({"x": x})["y"], x @ normal(3, 4), rtol=0, atol=1e-6)
    assert model.opset_imports[""] == 21


@pytest.mark.parametrize("keep", [0, 1, 50, 0.5, 0.9, -1])
def test_truncated_files_are_refused(tmp_path: Path, keep: float) -> None:
    data = dense().SerializeToString()
    cut = data[: int(keep * len(data)) if isinstance(keep, float) else keep]
    path = tmp_path / "cut.onnx"
    path.write_bytes(cut)
    with pytest.raises(LoadError, match=r"cut\.onnx"):
        load_graph(path)


@pytest.mark.parametrize("content", [b"not a model", b"\x00" * 64, b"PK\x03\x04" + bytes(range(256))])
def test_files_that_are_not_onnx_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.onnx"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=r"x\.onnx is truncated or not an ONNX file"):
        load_graph(path)


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"none\.onnx cannot be read: No such file"):
        load_graph(tmp_path / "none.onnx")
    with pytest.raises(LoadError, match=r"is a folder without a saved_model\.pb"):
        load_graph(tmp_path)


def test_files_above_the_cap_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, dense())
    monkeypatch.setattr(onnx_file, "MAX_BYTES", 100)
    with pytest.raises(LoadError, match="more than the 100 that are accepted"):
        load_graph(path)


def test_unknown_sources_are_refused() -> None:
    with pytest.raises(LoadError, match=r"a dict cannot be loaded; give a torch\.nn\.Module"):
        load_graph({})


def external(folder: Path, location: str, **entries: str) -> Path:
    proto = dense()
    tensor = proto.graph.initializer[0]
    data = tensor.raw_data
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "length": str(len(data)), **entries}.items():
        tensor.external_data.add(key=key, value=value)
    inner = folder / "inner"
    inner.mkdir()
    (inner / "w.bin").write_bytes(data)
    (folder / "outside.bin").write_bytes(data)
    return saved(inner, proto)


def test_external_data_beside_the_model_are_read(tmp_path: Path) -> None:
    model = load_graph(external(tmp_path, "w.bin"))
    assert to_bytes(model) == to_bytes(load_graph(dense()))


@pytest.mark.parametrize(
    ("location", "entries", "message"),
    [
        ("../outside.bin", {}, "only a relative path inside the model's folder"),
        ("/etc/hostname", {}, "only a relative path inside the model's folder"),
        ("a/../../outside.bin", {}, "only a relative path inside the model's folder"),
        ("gone.bin", {}, "no such file beside the model"),
        ("w.bin", {"offset": "8"}, "bytes 8 to 56 of a file of 48"),
        ("w.bin", {"offset": "-8"}, "bytes -8 to 40"),
        ("w.bin", {"offset": "many"}, "no integer"),
        ("w.bin", {"length": "40"}, r"dims \[3, 4\] need 48 bytes, 40 are declared"),
    ],
)
def test_hostile_external_data_are_refused(
    tmp_path: Path, location: str, entries: dict[str, str], message: str
) -> None:
    with pytest.raises(LoadError, match=f"tensor 'w' keeps its data in .*{message}|tensor 'w'.*{message}"):
        load_graph(external(tmp_path, location, **entries))


@pytest.mark.parametrize(("link", "kind"), [(os.symlink, "symbolic link"), (os.link, "hard link")])
def test_links_are_not_followed(tmp_path: Path, link: Callable[..., None], kind: str) -> None:
    path = external(tmp_path, "w.bin")
    (tmp_path / "inner" / "w.bin").unlink()
    link(tmp_path / "outside.bin", tmp_path / "inner" / "w.bin")
    with pytest.raises(LoadError, match=f"tensor 'w'.*{kind}"):
        load_graph(path)


def test_a_proto_with_external_data_asks_for_the_path(tmp_path: Path) -> None:
    proto = onnx.load(external(tmp_path, "w.bin"), load_external_data=False)
    with pytest.raises(
        LoadError, match="tensor 'w' keeps its data in another file; load the model from its path"
    ):
        load_graph(proto)


@pytest.mark.parametrize("dims", [[3, -4], [2**40, 2**40], [3, 5]])
def test_dims_that_do_not_fit_the_data_are_refused(dims: list[int]) -> None:
    proto = dense()
    del proto.graph.initializer[0].dims[:]
    proto.graph.initializer[0].dims.extend(dims)
    with pytest.raises(LoadError, match="tensor 'w'"):
        load_graph(proto)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_named(value: float) -> None:
    weight = normal(3, 4)
    weight[1, 2] = value
    with pytest.raises(LoadError, match=r"weight 'w' holds 1 value\(s\) that are NaN or Inf"):
        load_graph(dense(weight))


def test_infinity_in_a_mask_is_allowed_and_nan_is_not() -> None:
    body = "g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }"
    load_graph(dense(np.array([0, 0, 0, -np.inf], np.float32), body))
    with pytest.raises(LoadError, match="weight 'w' holds 1 value"):
        load_graph(dense(np.array([0, 0, 0, np.nan], np.float32), body))


def test_a_weight_without_elements_is_refused_an_input_is_not() -> None:
    """Auxiliary inputs are empty on purpose: the axes of a reduction, the example of a CastLike."""
    load_graph(parse("g (float[N,3] x, int64[0] axes) => (float y) { y = ReduceSum<keepdims=0>(x, axes) }"))
    with pytest.raises(LoadError, match=r"weight 'w' of node 'y' has shape \(3, 0\)"):
        load_graph(dense(np.zeros((3, 0), np.float32), BODY.replace("[N,4]", "[N,M]")))


def test_an_op_of_onnx_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LoadError, match=r"checker refuses.*Frobnicate"):
        load_graph(parse("g (float[3] x) => (float[3] y) { y = Frobnicate(x) }"))


def foreign(domain: str, op: str) -> onnx.ModelProto:
    proto = parse("g (float[3] x) => (float[3] y) { y = Relu(x) }")
    proto.opset_import.append(helper.make_opsetid(domain, 1))
    proto.graph.node[0].domain, proto.graph.node[0].op_type = domain, op
    return proto


def test_a_foreign_op_is_welcome_only_if_onnx_runtime_has_it() -> None:
    assert [n.op_type for n in load_graph(foreign("com.microsoft", "QuickGelu")).graph] == ["QuickGelu"]
    with pytest.raises(LoadError, match=r"ONNX Runtime cannot run my\.domain::Frob \(node 'y'\)"):
        load_graph(foreign("my.domain", "Frob"))


def test_session_returns_any_tensor_by_name() -> None:
    model = load_graph(parse("g (float[3] x) => (float[3] y) { a = Add(x, w) y = Relu(a) }", w=normal(3)))
    x = normal(3, seed=1)
    got = FloatSession(model, ["a", "w", "x", "y"], threads=1).run({"x": x})
    np.testing.assert_array_equal(got["a"], x + normal(3))  # one float32 addition each, exact on both sides
    np.testing.assert_array_equal(got["y"], np.maximum(got["a"], 0))
    np.testing.assert_array_equal(got["w"], normal(3))
    np.testing.assert_array_equal(got["x"], x)
    with pytest.raises(EngineError, match="no tensor named 'z'; it has a, y"):
        FloatSession(model, ["z"])
    with pytest.raises(EngineError, match="could not run the model"):
        FloatSession(model).run({"x": normal(4)})


@pytest.mark.parametrize(
    "kind", ["FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "INT64", "INT8", "BOOL", "UINT64"]
)
@pytest.mark.parametrize("missing", [0, 1, 6])
def test_numbers_that_stand_apart_are_counted(kind: str, missing: int) -> None:
    """A tensor may hold its numbers in a list by type, instead of bytes."""
    tensor = helper.make_tensor("k", TensorProto.DataType.Value(kind), [6], [1] * 6)
    field = getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type))
    del field[6 - missing :]
    proto = parse("g (float[6] x) => (float[6] y) { c = Cast <to=1> (k) y = Add (x, c) }")
    proto.graph.initializer.append(tensor)
    if not missing:
        load_graph(proto)
        return
    with pytest.raises(
        LoadError, match=rf"'k' with dims \[6\] needs 6 numbers, the file holds {6 - missing}"
    ):
        load_graph(proto)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT6E2M3, TensorProto.INT4, TensorProto.UINT2])
def test_bytes_of_types_below_a_byte_are_counted(kind: int) -> None:
    proto = parse("g (float[6] x) => (float[6] y) { y = Relu (x) }")
    proto.graph.initializer.add(name="k", data_type=kind, dims=[4, 16], raw_data=bytes(64))
    with pytest.raises(LoadError, match=r"'k' with dims \[4, 16\] needs \d+ bytes, the file holds 64"):
        load_graph(proto)


def test_an_input_of_no_type_is_refused() -> None:
    proto = dense()
    proto.graph.input[0].type.tensor_type.elem_type = 0
    with pytest.raises(LoadError, match="input 'x'"):
        load_graph(proto)
