"""What happens to a quantized model in the runtimes that are here: what lint's predictions are held against."""

from __future__ import annotations

import numpy as np

import eightbit as eb
from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.folder import network
from eightbit.deploy.tflite.engines import LiteRT, Micro
from eightbit.report.comparison import node_share


def in_float(q: eb.QuantizedModel, target: str) -> set[str]:
    """The nodes that a target's runtime computes in float.

    ONNX Runtime's optimized graph says so, less the sums of one term, which hold a float layer away from its neighbours
    and compute nothing; LiteRT's interpreter says which operators write float tensors. Others refuse float.
    """
    if target in ("x86-vnni", "x86-avx2", "arm"):
        return {name for name, _ in node_share(q.ir).in_float if not name.endswith("_held")}
    if target != "tflite":
        return set()
    interpreter = LiteRT(q.program, xnnpack=True)._interpreter
    details = {d["index"]: d for d in interpreter.get_tensor_details()}
    kept = [op for op in interpreter._get_ops_details() if op["op_name"] not in ("DEQUANTIZE", "DELEGATE")]
    made = [details[i] for op in kept for i in op["outputs"]]
    written = {detail["name"] for detail in made if detail["dtype"] is np.float32}
    nodes = {str(n.outputs[0].name): str(n.name) for n in q.ir.graph if n.op_type != "DequantizeLinear"}
    return {nodes[name] for name in written & set(nodes)}


def is_refused(q: eb.QuantizedModel, target: str) -> bool:
    """Whether a target's runtime, or the writer before it, refuses the model."""
    try:
        if target == "tflite":
            LiteRT(q.program, xnnpack=True)
        elif target == "tflm":
            Micro(q.program)
        elif target == "cortex-m":
            network(q.program, Arithmetic.TFLITE)
        else:
            q.run({i.name: np.zeros([n or 1 for n in i.shape or ()], np.float32) for i in q.inputs})
    except (eb.EngineError, eb.ExportError):
        return True
    return False
