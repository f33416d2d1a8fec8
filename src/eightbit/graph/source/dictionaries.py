"""Dictionaries at the ends of a graph, which classifiers of tables have: the tensors behind them instead.

ZipMap makes a dictionary {class: score} of each row of scores, and nothing but a caller's program reads those. The
scores come back in its place, under its output's name, and a note says which class each column is. Dictionaries of
other makers are refused.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from eightbit.errors import LoadError
from eightbit.graph.source.conversion import COMMON_OPSET, opset_of

MOST = 20
"""Classes that a note names one by one."""


def scores_given(proto: onnx.ModelProto) -> list[str]:
    """Let every output of a ZipMap be its scores, in place; a note for each. Raises LoadError for other dictionaries.

    `proto` has not been checked yet, and may hold anything.
    """
    makers = {name: node for node in proto.graph.node for name in node.output}
    said = []
    for value in proto.graph.output:
        maker = makers.get(value.name)
        if maker is None or maker.op_type != "ZipMap" or len(maker.input) != 1 or not _is_map(value.type):
            continue
        classes = next((list(a.ints) or list(a.strings) for a in maker.attribute), [])
        if classes:
            said.append(
                f"output '{value.name}' gives scores (N, {len(classes)}) where the file makes dictionaries of them; "
                f"the columns are {_listed(classes)}"
            )
            maker.CopyFrom(helper.make_node("Identity", maker.input, maker.output, maker.name))
            tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [None, len(classes)])
            value.type.CopyFrom(tensor)
    if said and opset_of(proto) is None:
        proto.opset_import.add(domain="", version=COMMON_OPSET)
    for value in (*proto.graph.input, *proto.graph.output):
        if _is_map(value.type):
            maker = makers.get(value.name)
            by = f", made by node '{maker.name}' ({maker.op_type})" if maker is not None else ""
            raise LoadError(
                f"'{value.name}' holds dictionaries{by}; export the model with tensors in their place"
            )
    return said


def _is_map(kind: onnx.TypeProto) -> bool:
    while kind.HasField("sequence_type") or kind.HasField("optional_type"):
        kind = (kind.sequence_type if kind.HasField("sequence_type") else kind.optional_type).elem_type
    return kind.HasField("map_type")


def _listed(classes: list[int] | list[bytes]) -> str:
    names = [c.decode(errors="replace") if isinstance(c, bytes) else str(c) for c in classes]
    return ", ".join(names if len(names) <= MOST else [*names[: MOST - 1], "...", names[-1]])
