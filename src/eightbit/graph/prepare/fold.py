"""Float graph -> float graph in the shape that calibration and quantization expect.

Every pass keeps what the graph computes, up to the rounding of products that are now taken once.
What `prepare` leaves: opset 21 where ONNX can convert, weights and biases as initializers, no
BatchNormalization behind a linear layer, explicit pads, Reshape targets constant with the batch free,
no transposes that cancel, and a shape on every tensor that shape inference can follow.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import onnx_ir as ir
import onnx_ir.passes.common as passes

from eightbit.errors import LoadError
from eightbit.graph import run
from eightbit.graph.names import counted
from eightbit.graph.notes import note
from eightbit.graph.prepare import (
    affine_layers,
    attention,
    branches,
    constants,
    restate,
    rows,
    sequences,
    settle,
    spatial,
    transposes,
)
from eightbit.graph.source import naming
from eightbit.graph.source.conversion import (
    COMMON_OPSET,
    compared,
    converted,
    is_restated,
    newest_quantizable,
)
from eightbit.graph.source.operands import check_operands
from eightbit.graph.source.quiet import silence

Pass = Callable[[ir.Model], int]


def operands_fit(model: ir.Model) -> int:
    """No change; raises LoadError for operands that do not fit, now that `settle` has found inner shapes."""
    check_operands(model)
    return 0


# Constants first: what the others match on must be visible as an initializer.
PASSES: tuple[Pass, ...] = (
    settle.settle,
    branches.take_known_branches,
    operands_fit,
    constants.drop_no_ops,
    constants.squeeze_to_reshape,
    spatial.explicit_windows,
    spatial.fold_pad,
    spatial.mean_to_global_pool,
    restate.blocks_to_transpose,
    restate.global_pool_to_max,
    restate.split_to_slices,
    restate.one_slope,
    transposes.reshape_transpose_reshape,
    transposes.cancel_transposes,
    transposes.sink_transposes,
    affine_layers.matmul_to_gemm,
    affine_layers.normalize_gemm,
    affine_layers.fold_batchnorm,
    affine_layers.fold_constant_affine,
    affine_layers.merge_factors,
    affine_layers.unshare_biases,
    rows.linear_to_gemm,
    rows.fold_score_scale,
    attention.fold_attention_biases,
    restate.subtract_in_layer,
)
MAX_ROUNDS = 20
"""Each round settles the whole graph before it rewrites, so that depth costs no rounds: models need two or three, and
the last finds nothing to do."""


def prepare(model: ir.Model) -> ir.Model:
    """A new graph that computes the same and is ready for calibration; `model` is not changed.

    Graph inputs and outputs keep names, dtypes and shapes; node names survive. Raises LoadError for a node whose inputs
    its operator cannot have.
    """
    prepared = _at_common_opset(model)
    passes.RemoveInitializersFromInputsPass()(prepared)
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(prepared)
    passes.TopologicalSortPass()(prepared)
    settle.forget_stale_shapes(prepared)
    if next(prepared.graph.subgraphs(), None) is not None:  # `settle` does not look into the graphs of nodes
        infer_shapes(prepared)
    with counted(prepared.graph):
        for _ in range(MAX_ROUNDS):
            changed = [fold.__name__ for fold in PASSES if fold(prepared)]
            tidy(prepared)
            if not changed:
                break
        else:
            note(
                prepared,
                f"preparing the graph stopped after {MAX_ROUNDS} rounds, while {', '.join(changed)} still found "
                "something to do; it computes the same, but some of it may stay in float: please report the model",
            )
    naming.fill_names(prepared)
    return prepared


def tidy(model: ir.Model) -> None:
    """Drop unread nodes and initializers, and sort, in place."""
    passes.RemoveUnusedNodesPass()(model)
    passes.TopologicalSortPass()(model)


def infer_shapes(model: ir.Model) -> None:
    """Set dtype and shape of every tensor that ONNX's shape inference can follow, in place.

    Without data propagation: it writes out every 1-D tensor whose length it knows, so that one
    ConstantOfShape can exhaust memory. `shapes` follows shape arithmetic instead.
    """
    weights = model.graph.initializers
    order = list(weights)
    with silence():  # the pass logs a traceback where it meets an op that it does not know
        passes.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=False)(model)
    kept = [
        weights.pop(name) for name in order
    ]  # it takes large ones out for a while, and puts them back last
    for value in kept:
        model.graph.register_initializer(value)
    sequences.restore_types(model)


def _at_common_opset(model: ir.Model) -> ir.Model:
    """A copy at opset 21, or, where it is newer, at the newest in which ONNX Runtime can quantize.

    A graph that the converter refuses keeps its own, and so does one of which it makes another function.
    """
    opset = model.opset_imports.get("", COMMON_OPSET)
    wanted = COMMON_OPSET if opset <= COMMON_OPSET else min(opset, newest_quantizable())
    if opset != wanted:
        with suppress(LoadError):
            before = run.to_proto(model)
            after = converted(before, wanted)
            unsure = compared(before, after) if is_restated(before, wanted) else None
            changed = ir.from_proto(after)
            if unsure is not None:
                note(changed, unsure)
            return changed
    return model.clone()
