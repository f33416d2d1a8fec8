"""A small residual network as an ONNX file, and data for it: what the facade's tests work on."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5
SHAPE = (3, 8, 8)


def small_net(extra: onnx.NodeProto | None = None, domain: str = "") -> onnx.ModelProto:
    """Conv, Relu, Conv, Add, Relu, MaxPool, mean, Gemm; `extra` is put between the mean and the classifier."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
        return numpy_helper.from_array((rng.standard_normal(shape) * scale).astype(np.float32), name)

    last = "f" if extra is None else extra.output[0]
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="stem", pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu1"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], name="body", pads=[1] * 4),
        helper.make_node("Add", ["c2", "r1"], ["a"], name="skip"),
        helper.make_node("Relu", ["a"], ["r2"], name="relu2"),
        helper.make_node("MaxPool", ["r2"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        *([] if extra is None else [extra]),
        helper.make_node("Gemm", [last, "w3", "b3"], ["logits"], name="classifier", transB=1),
    ]
    weights = [
        *(weight("w1", 8, *SHAPE[:1], 3, 3), weight("b1", 8)),
        *(weight("w2", 8, 8, 3, 3), weight("b2", 8)),
        *(weight("w3", CLASSES, 8), weight("b3", CLASSES)),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *SHAPE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    opsets = [helper.make_opsetid("", 21), *([helper.make_opsetid(domain, 1)] if domain else [])]
    graph = helper.make_graph(nodes, "small", [image], [logits], weights)
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, *SHAPE)).astype(np.float32)


def write_small_net(folder: Path) -> Path:
    path = folder / "net.onnx"
    onnx.save(small_net(), path)
    return path


def by_another_quantizer(folder: Path) -> Path:
    """The file that `onnxruntime.quantization` makes of the network: activations uint8, weights int8 a channel."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    rng = np.random.default_rng(0)
    batches = iter([{"image": rng.normal(size=(4, *SHAPE)).astype(np.float32)} for _ in range(3)])

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,name-defined]
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(batches, None)

    onnx.save(small_net(), folder / "float.onnx")
    quantization.quantize_static(
        folder / "float.onnx",
        folder / "int8.onnx",
        Reader(),
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    return folder / "int8.onnx"
