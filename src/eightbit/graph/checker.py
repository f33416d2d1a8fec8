"""ONNX's checker, for the files that runtimes take."""

from __future__ import annotations

import onnx


def check(proto: onnx.ModelProto) -> None:
    """Raise onnx.checker.ValidationError, or ValueError, for an invalid model.

    An output that states no shape makes none: the checker asks for it, ONNX Runtime works it out. (An input without
    one is refused by `data.specs`, which says what to do.)
    """
    shapeless = [
        value.type.tensor_type
        for value in (*proto.graph.input, *proto.graph.output)
        if value.type.HasField("tensor_type") and not value.type.tensor_type.HasField("shape")
    ]
    for kind in shapeless:
        kind.shape.SetInParent()
    try:
        onnx.checker.check_model(proto)
    finally:
        for kind in shapeless:
            kind.ClearField("shape")
