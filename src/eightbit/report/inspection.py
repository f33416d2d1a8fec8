"""What is inside a quantized file: every tensor of codes, its grid, its bytes, and what to watch out for.

In: a `QuantizedModel` or the path of one. Out: a frozen `Inspection` that prints, shows itself in a notebook and turns
into JSON. Nothing is run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from eightbit.deploy.saturation import saturating
from eightbit.errors import EngineError, printable
from eightbit.graph.coded import float_name
from eightbit.graph.embeddings import CodeTable, code_table
from eightbit.graph.forms import LAYERS
from eightbit.graph.model import constant, dims, input_at, is_op
from eightbit.graph.packing import packed_widths
from eightbit.graph.processor import METADATA, adds_in_int16, this_processor, would_saturate
from eightbit.graph.save import file_bytes
from eightbit.graph.sharing import shared
from eightbit.integer.lower.dynamic_layers import dynamic_layers
from eightbit.integer.program import DynamicGemm
from eightbit.model import QuantizedModel, in_float
from eightbit.model import open as open_quantized
from eightbit.quant.write.weights_file import encoded_layers, is_sparse, weights_bytes
from eightbit.report.table import Table, shape_text
from eightbit.values.fields import check

BORDERS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class TensorRow:
    """One tensor of codes: `scale` is one number or, for `channels` > 1, the smallest and the largest.

    `name` is the float tensor's; `op` computes it ("input" and "constant" are not computed); `shape` has None for a
    free dimension; `bits` is the width of a code in the file. `zeros` is the share of zero codes in a constant.
    """

    name: str
    kind: str
    op: str
    dtype: str
    bits: int
    shape: tuple[int | None, ...] | None
    channels: int
    scale: tuple[float, float]
    zero_point: int
    zeros: float | None = None


@dataclass(frozen=True)
class FloatNode:
    """A node that computes in float32 although the graph is quantized."""

    name: str
    op: str
    reason: str


@dataclass(frozen=True)
class Inspection:
    """The inventory of a quantized graph; `bytes` by kind adds up to the file's size.

    `sparse_bytes` is the size of the file of `save_weights` where that leaves zeros out, else None.
    """

    tensors: tuple[TensorRow, ...]
    ops: Mapping[str, int]
    bytes: Mapping[str, int]
    islands: tuple[FloatNode, ...]
    warnings: tuple[str, ...]
    sparse_bytes: int | None = None

    def __post_init__(self) -> None:
        check(self, EngineError)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists, dicts and numbers, for JSON."""
        return asdict(self) | {"ops": dict(self.ops), "bytes": dict(self.bytes)}

    def tables(self) -> tuple[Table, ...]:
        """The inventory as tables: tensors, operations, bytes, float nodes."""
        pruned = self.sparse_bytes is not None
        columns = ("tensor", "kind", "from", "dtype", "shape", "scale>", "zero point>")
        rows = tuple(
            (t.name, t.kind, t.op, t.dtype, shape_text(t.shape), _scale_text(t), str(t.zero_point))
            + (("" if t.zeros is None else f"{t.zeros:.0%}",) if pruned else ())
            for t in self.tensors
        )
        total = sum(self.bytes.values())
        sizes = tuple((k, f"{v:,}", f"{v / total:.1%}") for k, v in (*self.bytes.items(), ("file", total)))
        counts = tuple((op, str(n)) for op, n in self.ops.items())
        found = [
            Table(f"Tensors of codes: {len(rows)}", (*columns, *(("zeros>",) if pruned else ())), rows),
            Table(f"Operations: {sum(self.ops.values())}", ("op", "nodes>"), counts),
            Table(
                "Bytes",
                ("kind", "bytes>", "share>"),
                sizes,
                f"save_weights leaves zeros out: {self.sparse_bytes:,} bytes in all" if pruned else "",
            ),
        ]
        if self.islands:
            found.append(
                Table(
                    f"Left in float: {len(self.islands)} nodes",
                    ("node", "op", "reason"),
                    tuple((i.name, i.op, i.reason) for i in self.islands),
                )
            )
        return tuple(found)

    def __str__(self) -> str:
        parts = [str(t) for t in self.tables()]
        if not self.islands:
            parts.append("Left in float: no node")
        return printable("\n\n".join([*parts, *(f"Warning: {w}" for w in self.warnings)]))

    def _repr_html_(self) -> str:
        warnings = "".join(str(Table("", ("",), ((f"Warning: {w}",),)).html()) for w in self.warnings)
        return "".join(t.html() for t in self.tables()) + warnings


def inspect(q: QuantizedModel | str | os.PathLike[str], *, cpu: frozenset[str] | None = None) -> Inspection:
    """Take the inventory of a quantized model or of the file of one.

    The warnings are for this machine's processor (`graph.processor.this_processor`), or for one whose flags `cpu` holds
    as Linux names them. Raises LoadError for a file that is no quantized ONNX model.
    """
    model = q if isinstance(q, QuantizedModel) else open_quantized(q)
    tensors = tuple(_tensors(model.ir))
    islands = float_nodes(model)
    ops = Counter(node.op_type for node in model.ir.graph if node.op_type not in BORDERS)
    in_pairs = adds_in_int16(this_processor()) if cpu is None else would_saturate(cpu)
    return Inspection(
        tensors,
        dict(sorted(ops.items())),
        _bytes(model.ir),
        islands,
        (*_unmade_for(model, in_pairs), *_warnings(model.ir, tensors, islands), *_remarks(model)),
        _sparse_bytes(model.ir),
    )


def _sparse_bytes(model: ir.Model) -> int | None:
    """The size of the file of weights, where it leaves zeros out."""
    if any(is_sparse(layer.weight) for _, layer in encoded_layers(model).values()):
        return len(weights_bytes(model))
    return None


def float_nodes(q: QuantizedModel) -> tuple[FloatNode, ...]:
    """The nodes of a QDQ graph that compute in float: those of the integer program's float islands.

    Reasons come from the quantization's own report where the model still has it, else from the program.
    """
    reasons = {i.node: i.reason for i in q.report.islands} if q.report else {}
    found = in_float(q.ir, q.program)
    return tuple(FloatNode(i.node, i.op, reasons.get(i.node, i.reason)) for i in found)


def _tensors(model: ir.Model) -> Iterator[TensorRow]:
    seen = set()
    widths = packed_widths(model)
    dynamic = {op.name: op for op in dynamic_layers(model)[0] if isinstance(op, DynamicGemm)}
    value: ir.Value | None
    source: ir.Value | None
    for node in model.graph:
        table = code_table(node)
        if node.op_type == "QuantizeLinear":
            value, source = node.outputs[0], node.inputs[0]
        elif node.op_type == "DequantizeLinear" and constant(node.inputs[0]) is not None:
            value, source = node.inputs[0], None
        elif table is not None:
            value, source = table.constants[0], None
        elif node.name in dynamic:
            value, source = node.inputs[1], None
        else:
            continue
        if value is None:
            continue
        if table is not None:
            row = _table_row(table)
        elif node.name in dynamic:
            row = _dynamic_row(dynamic[str(node.name)], value)
        else:
            row = _row(node, value, source)
        row = replace(row, bits=widths.get(str(value.name), row.bits))
        if row not in seen:  # codes that several nodes read
            yield row
        seen.add(row)


def _table_row(table: CodeTable) -> TensorRow:
    return TensorRow(
        name=float_name(table.constants[0]),
        kind="table",
        op="constant",
        dtype=str(table.codes.dtype),
        bits=table.codes.itemsize * 8,
        shape=table.codes.shape,
        channels=len(table.scale),
        scale=(float(table.scale.min()), float(table.scale.max())),
        zero_point=0,
        zeros=_zeros(table.codes),
    )


def _dynamic_row(op: DynamicGemm, weight: ir.Value) -> TensorRow:
    return TensorRow(
        name=float_name(weight),
        kind="weight",
        op="constant",
        dtype=str(op.weight.dtype),
        bits=8,
        shape=op.weight.shape,
        channels=1 if (op.weight_scale == op.weight_scale[0]).all() else len(op.weight_scale),
        scale=(float(op.weight_scale.min()), float(op.weight_scale.max())),
        zero_point=0,
        zeros=_zeros(op.weight),
    )


def _row(node: ir.Node, value: ir.Value, source: ir.Value | None) -> TensorRow:
    scale = constant(node.inputs[1])
    zero_point = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    array = constant(value)
    dtype = (
        array.dtype
        if array is not None
        else (zero_point.dtype if zero_point is not None else np.dtype("uint8"))
    )
    if source is None:
        kind, op = ("bias" if dtype == np.int32 else "weight"), "constant"
    else:
        producer = source.producer()
        kind, op = "activation", "input" if producer is None else producer.op_type
    bits = value.dtype.bitwidth if value.dtype is not None else dtype.itemsize * 8
    limits = (float("nan"),) * 2 if scale is None else (float(scale.min()), float(scale.max()))
    shape = array.shape if array is not None else dims(source)
    return TensorRow(
        name=float_name(value),
        kind=kind,
        op=op,
        dtype=str(dtype),
        bits=bits,
        shape=shape,
        channels=1 if scale is None else int(scale.size),
        scale=limits,
        zero_point=0 if zero_point is None else int(zero_point.ravel()[0]),
        zeros=None if array is None else _zeros(array),
    )


def _zeros(codes: np.ndarray) -> float | None:
    return float(np.mean(codes == 0)) if codes.size else None


def _bytes(model: ir.Model) -> dict[str, int]:
    """Bytes of the file by what they hold; the rest is the graph: nodes, names, framing."""
    model = shared(model)
    found: Counter[str] = Counter()
    codes = {
        str(n.inputs[0].name)
        for n in model.graph
        if n.op_type == "DequantizeLinear" and n.inputs[0] is not None
    }
    tables = [table for n in model.graph if (table := code_table(n)) is not None]
    codes |= {str(table.constants[0].name) for table in tables}
    codes |= {
        str(n.inputs[1].name) for n in model.graph if is_op(n, "MatMulInteger") and n.inputs[1] is not None
    }
    widths = packed_widths(model)
    grids = {str(v.name) for n in model.graph if n.op_type in BORDERS for v in n.inputs[1:] if v is not None}
    grids |= {str(table.constants[1].name) for table in tables}
    for name, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None:
            continue
        if name in codes:
            kind = "int32 biases" if tensor.dtype == ir.DataType.INT32 else "codes of weights"
        else:
            kind = "scales and zero points" if name in grids else "float and other constants"
        found[kind] += -(-tensor.size * widths[name] // 8) if name in widths else tensor.nbytes
    order = ("codes of weights", "int32 biases", "scales and zero points", "float and other constants")
    sizes = {kind: found[kind] for kind in order}
    return sizes | {"graph": len(file_bytes(model)) - sum(sizes.values())}


def _unmade_for(model: QuantizedModel, in_pairs: bool) -> Iterator[str]:
    """A sentence where a model is for other processors than one that adds pairs of products in int16, or not."""
    layers = sum(1 for _ in saturating(model.program)) if in_pairs else 0
    if layers:
        yield (
            "this processor has no VNNI: its fast kernels saturate pairs of products at int16, and "
            f"{layers} layers here have weights with which they can. This package asks for exact ones, which are "
            "slower; other programs may not. Quantize with Recipe(processor='x86-avx2')"
        )
    if not in_pairs and model.ir.metadata_props.get(METADATA) == "x86-avx2":
        yield (
            "made for x86-avx2, with coarser weights than this processor needs: quantize with "
            "Recipe(processor='x86-vnni'), or with 'any' if the file is for both"
        )


def _warnings(
    model: ir.Model, tensors: tuple[TensorRow, ...], islands: tuple[FloatNode, ...]
) -> Iterator[str]:
    dead = [t.name for t in tensors if t.kind == "activation" and t.scale == (1.0, 1.0)]
    if dead:
        yield (
            f"{_some(dead)} took no value but 0 in calibration (scale 1); "
            "give calibration data that look like the real inputs"
        )
    wide = [
        t.name for t in tensors if t.kind == "weight" and t.channels > 1 and t.scale[1] > 1e6 * t.scale[0]
    ]
    if wide:
        yield f"the channel scales of {_some(wide)} span more than a million; look for channels that training left dead"
    slow = [str(n.name) for n in model.graph if n.op_type in LAYERS and _touches_wide(n)]
    if slow:
        yield (
            f"{_some(slow)} reads or writes codes of 16 bits: ONNX Runtime has no integer kernels for them "
            "and computes it in float32"
        )
    layers = [i.name for i in islands if i.op in LAYERS]
    if layers:
        yield f"{_some(layers)} multiplies in float; its weights take four bytes each and no integer kernel runs"


def _remarks(q: QuantizedModel) -> tuple[str, ...]:
    """What the check of the outputs at the end of the quantization calls for attention to."""
    return () if q.report is None or q.report.check is None else q.report.check.remarks


def _touches_wide(node: ir.Node) -> bool:
    """Whether a layer's weight, an input or its output are codes of 16 bits."""
    borders = [v.producer() for v in node.inputs[:2] if v is not None]
    borders += [use.node for out in node.outputs for use in out.uses()]
    zeros = [constant(input_at(n, 2)) for n in borders if n is not None and is_op(n, *BORDERS)]
    return any(z is not None and z.dtype.itemsize == 2 for z in zeros)


def _some(names: list[str], most: int = 3) -> str:
    shown = ", ".join(f"'{n}'" for n in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _scale_text(row: TensorRow) -> str:
    lo, hi = row.scale
    return f"{lo:.4g}" if row.channels == 1 else f"{lo:.3g} .. {hi:.3g} ({row.channels})"
