"""What every framework's module does alike: begin from a quantized model, and become one again.

In: a `QuantizedModel` that `quantize` returned, later the learned values as arrays. Out: its plan, and the model that
the values stand for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from eightbit.errors import QuantizationError
from eightbit.integer.program import FloatIsland, Program
from eightbit.model import QuantizedModel, Report
from eightbit.train.forward import KERNELS
from eightbit.train.islands import island
from eightbit.train.plan import Plan, Values, learned_params, plan, write


def planned(q: QuantizedModel) -> tuple[Plan, Report]:
    """What can be learned of `q`, and its report.

    Raises QuantizationError for a model from a file, one without layers on calibrated codes, and for nodes that have no
    gradient here, all of which it names.
    """
    if q.report is None:
        raise QuantizationError(
            "a model that was opened from a file has lost its recipe; train what quantize returned"
        )
    found = plan(q.ir, q.program, q.report.recipe)
    missing = _without_gradient(q.program)
    if missing:
        raise QuantizationError(
            f"these have no gradient here: {', '.join(missing)}; train a model that ends before, or in "
            "which others take their place"
        )
    return found, q.report


def _without_gradient(program: Program) -> list[str]:
    """What `Forward` cannot run, each as its kind and place."""
    missing: list[str] = []
    known: set[str] = set()
    for op in program.ops:
        if isinstance(op, FloatIsland):
            found = island(op, known)
            missing += found.without_gradient
            known |= found.known
        elif type(op) not in KERNELS:
            missing.append(f"{type(op).__name__} in {op.name!r}")
    return missing


def converted(plan: Plan, report: Report, values: Values) -> QuantizedModel:
    """The model with the integers that `values` stand for."""
    graph, recipe = write(plan, values), report.recipe
    if recipe.holds_pairs:  # training moved the codes, and held no pairs
        recipe = replace(recipe, processor="x86-vnni")
    params = learned_params(graph, report.params)
    return QuantizedModel(graph, replace(report, params=params, recipe=recipe, check=None))


def engine_codes(program: Program, steps: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of codes that `Forward` holds in steps, as the engines have them: canonical integers by name."""
    return {
        name: (steps[name] + info.zero_point).astype(info.itype.dtype)
        for name, info in program.tensors.items()
        if name in steps
    }
