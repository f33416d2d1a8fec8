"""A chain of Gemm and Relu as an ONNX model, for the labs' tests."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def chain(*weights: np.ndarray) -> onnx.ModelProto:
    """Layers fc1, fc2, and so on, each with weights (out, in) and no bias, and a Relu between one and the next."""
    nodes, held, last = [], [], "x"
    for number, weight in enumerate(weights, 1):
        held.append(numpy_helper.from_array(weight.astype(np.float32), f"w{number}"))
        nodes.append(
            helper.make_node("Gemm", [last, f"w{number}"], [f"fc{number}_out"], name=f"fc{number}", transB=1)
        )
        last = f"fc{number}_out"
        if number < len(weights):
            nodes.append(helper.make_node("Relu", [last], [f"relu{number}_out"], name=f"relu{number}"))
            last = f"relu{number}_out"
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", weights[0].shape[1]])
    y = helper.make_tensor_value_info(last, TensorProto.FLOAT, ["N", weights[-1].shape[0]])
    graph = helper.make_graph(nodes, "chain", [x], [y], held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
