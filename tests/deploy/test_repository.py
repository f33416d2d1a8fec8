"""A repository for Triton, read back by protobuf's own parser with the fields of Triton's model_config.proto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

import eightbit as eb
from eightbit.cli import main
from eightbit.data.specs import TensorSpec
from eightbit.deploy.repository import MOST_TOGETHER, TYPES, config
from tests.graph.graphs import normal, parse
from tests.small_net import images, small_net

FIELD = descriptor_pb2.FieldDescriptorProto
# Names, numbers and kinds as in triton-inference-server/common, protobuf/model_config.proto; only what is written.
DATA_TYPES = (
    *("TYPE_INVALID", "TYPE_BOOL", "TYPE_UINT8", "TYPE_UINT16", "TYPE_UINT32", "TYPE_UINT64", "TYPE_INT8"),
    *("TYPE_INT16", "TYPE_INT32", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64", "TYPE_STRING"),
)
ENUMS = {"DataType": DATA_TYPES, "Kind": ("KIND_AUTO", "KIND_GPU", "KIND_CPU")}
TENSOR = (("name", 1, "string", 0), ("data_type", 2, "DataType", 0), ("dims", 3, "int64", 1))
MESSAGES = {
    "ModelInput": (("name", 1, "string", 0), ("data_type", 2, "DataType", 0), ("dims", 4, "int64", 1)),
    "ModelOutput": TENSOR,
    "ModelInstanceGroup": (("kind", 4, "Kind", 0),),
    "ModelDynamicBatching": (),
    "Latest": (("num_versions", 1, "uint32", 0),),
    "ModelVersionPolicy": (("latest", 1, "Latest", 0),),
    "ModelConfig": (
        *(
            ("name", 1, "string", 0),
            ("version_policy", 3, "ModelVersionPolicy", 0),
            ("max_batch_size", 4, "int32", 0),
        ),
        *(("input", 5, "ModelInput", 1), ("output", 6, "ModelOutput", 1), ("backend", 17, "string", 0)),
        *(
            ("instance_group", 7, "ModelInstanceGroup", 1),
            ("dynamic_batching", 11, "ModelDynamicBatching", 0),
        ),
    ),
}
SCALARS = {
    "string": FIELD.TYPE_STRING,
    "int64": FIELD.TYPE_INT64,
    "int32": FIELD.TYPE_INT32,
    "uint32": FIELD.TYPE_UINT32,
}


def parsed(text: str) -> Any:
    """The configuration, by protobuf; raises where the text is none."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        enum = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, many in fields:
            made = message.field.add(name=field, number=number)
            made.label = FIELD.LABEL_REPEATED if many else FIELD.LABEL_OPTIONAL
            if kind in SCALARS:
                made.type = SCALARS[kind]
            else:
                made.type = FIELD.TYPE_ENUM if kind in ENUMS else FIELD.TYPE_MESSAGE
                made.type_name = f".inference.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))
    return text_format.Parse(text, kind())


def quantized(text: str, *shape: int, **weights: np.ndarray) -> eb.QuantizedModel:
    return eb.quantize(eb.load(parse(text, **weights)), normal(*shape), eb.Recipe.plain())


W = normal(8, 8)
MODELS = {
    "free batch": lambda: eb.quantize(small_net(), images(8)),
    "fixed batch": lambda: quantized("g (float[4,8] x) => (float[4,8] y) { y = MatMul (x, w) }", 4, 8, w=W),
    "free length": lambda: quantized(
        "g (float[N,T,8] x) => (float[N,T,8] y) { y = MatMul (x, w) }", 2, 3, 8, w=W
    ),
    "batch in front, one number behind": lambda: quantized(
        "g (float[N,8] x) => (float[1,1] y) { a = MatMul (x, w)\n y = ReduceSum (a) }", 4, 8, w=W
    ),
    "ranges of each run": lambda: eb.quantize(
        small_net(), images(8), eb.Recipe(activations=eb.Activations(dynamic=True))
    ),
    "free batch, a range a token": lambda: eb.quantize(
        small_net(), None, eb.Recipe(activations=eb.Activations(granularity=eb.PerToken(), dynamic=True))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_configuration_says_what_the_file_takes(name: str, tmp_path: Path) -> None:
    q = MODELS[name]()
    written = eb.export(q, tmp_path / "repo", format="triton", name="small-1.0")
    files = sorted(str(f.relative_to(tmp_path)) for f in tmp_path.rglob("*") if f.is_file())
    assert files == ["repo/small-1.0/1/model.onnx", "repo/small-1.0/config.pbtxt"]
    found = parsed((tmp_path / "repo/small-1.0/config.pbtxt").read_text())
    session = ort.InferenceSession(
        tmp_path / "repo/small-1.0/1/model.onnx", providers=["CPUExecutionProvider"]
    )
    batched = name.startswith(("free batch", "free length"))
    assert (found.name, found.backend, found.max_batch_size) == (
        "small-1.0",
        "onnxruntime",
        MOST_TOGETHER * batched,
    )
    assert found.HasField("dynamic_batching") == batched and written.together == found.max_batch_size
    assert [group.kind for group in found.instance_group] == [ENUMS["Kind"].index("KIND_CPU")]
    for tensors, ends in ((found.input, session.get_inputs()), (found.output, session.get_outputs())):
        assert [tensor.name for tensor in tensors] == [end.name for end in ends]
        for tensor, end in zip(tensors, ends, strict=True):
            dims = [n if isinstance(n, int) else -1 for n in end.shape]
            assert [-1] * batched + list(tensor.dims) == dims
            assert (DATA_TYPES[tensor.data_type], end.type) == ("TYPE_FP32", "tensor(float)")


def test_the_served_file_answers_as_the_model(tmp_path: Path) -> None:
    q = MODELS["free batch"]()
    eb.export(q, tmp_path, format="triton")
    np.testing.assert_array_equal(eb.open(tmp_path / "net/1/model.onnx")(images(5)), q(images(5)))


def test_every_dtype_and_any_name_is_said() -> None:
    names = [*TYPES, 'a"b\\c\nd\u00e9']
    inputs = [TensorSpec(n, np.dtype(n if n in TYPES else "O"), (None, 2)) for n in names]
    found = parsed(config("m", inputs, [TensorSpec("y", np.dtype("float32"), (None,))], 0))
    assert [tensor.name for tensor in found.input] == names
    assert [DATA_TYPES[t.data_type] for t in found.input] == [*TYPES.values(), "TYPE_STRING"]
    with pytest.raises(eb.ExportError, match="'z' is complex64, which Triton has no type for"):
        config("m", [TensorSpec("z", np.dtype("complex64"), (1,))], [], 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"format": "zip"}, "unknown format 'zip'; choose 'c', 'tflite', 'triton'"),
        ({"format": "triton", "name": "../up"}, "is no name of a model"),
        ({"format": "triton", "name": ".."}, "is no name of a model"),
        (
            {"format": "triton", "arithmetic": "single"},
            "arithmetic and data are for C; leave them out for a repository",
        ),
        ({"format": "triton", "data": 1}, "arithmetic and data are for C"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(eb.ExportError, match=said):
        eb.export(MODELS["fixed batch"](), tmp_path / "r", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_it(tmp_path: Path) -> None:
    MODELS["free batch"]().save(tmp_path / "q.onnx")
    words = ["export", str(tmp_path / "q.onnx"), "-o", str(tmp_path / "repo"), "--format", "triton"]
    result = CliRunner().invoke(main, [*words, "--name", "clothes"])
    assert result.stdout == f"{tmp_path / 'repo'}: model clothes, version 1, up to 64 samples a run\n"
    assert (tmp_path / "repo/clothes/config.pbtxt").exists()
    (tmp_path / "file").write_text("")
    words[3] = str(tmp_path / "file")
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1 and "cannot make the folder" in result.stderr
