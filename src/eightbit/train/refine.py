"""Learning without labels: the codes, biases and scales of a quantized model, taught by the float one.

In: a float model, a few hundred inputs, and a recipe or what `quantize` made of it. Out: a quantized model of the same
form. Every number that training can change learns to lower the error of the outputs y relative to the float model's t::

    sum over the outputs of sum |y - t|² / sum |t|²,                                                              (1)

through all layers at once, so that later ones make up for earlier ones. Few inputs are soon learned by heart: steps
are small and few, their average counts, and a part of the inputs is held out. What has the least error (1) on that
part, the model of before included, is the result.
Sources: AdaQuant (Hubara et al. 2020, arXiv 2006.10518) and BRECQ (Li et al. 2021, arXiv 2102.05426), which learn layer
by layer and block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from eightbit.data.feeds import Feeds
from eightbit.data.replay import replayable
from eightbit.data.samples import Samples
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError, MissingExtra, QuantizationError
from eightbit.graph.samples import samples
from eightbit.model import Model, QuantizedModel, quantize, with_data
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.observe.calibrate import Progress
from eightbit.train.refinement import Refinement
from eightbit.values.fields import argument

FEWEST = 8
"""Samples to learn from, held-out ones included."""


def refine(
    model: Any,
    calibration: Any,
    start: Recipe | QuantizedModel | None = None,
    *,
    refinement: Refinement | None = None,
    progress: Progress | None = None,
) -> QuantizedModel:
    """The int8 model of `quantize`, with scales, biases and codes learned from `model`'s own answers. No labels needed.

    `model` and `calibration` are what `quantize` takes; a few hundred samples will do. `start` is a recipe (default:
    `Recipe()`), or what `quantize` made of this model. The result is never worse than the start on the samples that
    were held out, and a note of its report says what was won. The same arguments give the same integers.

    Layers that were rounded in turn leave little to learn: with 128 pictures and a start that rounds each layer of
    ResNet-8 for itself W4A8 goes from 22.0 to 25.1 dB, and from one that rounds them in turn it stays at 26.4.

    Raises as `quantize`; CalibrationError for fewer than 8 samples; QuantizationError for a `start` that is another
    model's or comes from a file, for layers that cannot learn (dynamic and weight-only ones) and for nodes in float
    without a gradient; MissingExtra without PyTorch.
    """
    chosen = argument("refinement", refinement, Refinement | None) or Refinement()
    start = argument("start", start, Recipe | QuantizedModel | None)
    if isinstance(model, QuantizedModel):
        raise QuantizationError(
            "the float model is the teacher and comes first: refine(model, data, q) with the model that q was made from"
        )
    try:
        from eightbit.train.imitation import Imitation
    except ImportError as cause:
        raise MissingExtra("torch", "torch") from cause
    teacher, data = with_data(model, calibration)
    data = replayable(data, specs(teacher.ir))
    q = start if isinstance(start, QuantizedModel) else quantize(teacher, data, start, progress=progress)
    _check_same(teacher, q)
    found = samples(teacher.ir, data, CalibrationError)
    held_out, learned = _parted(found, list(found), chosen)
    learner = Imitation(q, teacher, found, chosen)
    before, after, best = learner.run(held_out, learned, progress=progress)
    counted = f"{sum(map(found.count, learned))} samples; on {sum(map(found.count, held_out))} others"
    if best is None:
        note = f"refined in vain on {counted} every model on the way was worse than the {before:.1f} dB of before"
        refined, report = q, q.report
    else:
        note = f"refined on {counted} the outputs' SQNR went from {before:.1f} to {after:.1f} dB"
        refined, report = best, best.report
    assert report is not None
    return QuantizedModel(refined.ir, replace(report, notes=(*report.notes, note)))


def _check_same(model: Model, q: QuantizedModel) -> None:
    """Raise QuantizationError unless both take and give tensors of the same names and shapes."""
    for what, its, own in (
        ("inputs", model.inputs, q.inputs),
        ("outputs", model.outputs, q.outputs),
    ):
        if [(t.name, t.shape) for t in its] != [(t.name, t.shape) for t in own]:
            raise QuantizationError(
                f"the quantized model was made from another one: its {what} are {'; '.join(map(str, own))}, those of "
                f"the float model {'; '.join(map(str, its))}"
            )


def _parted(found: Samples, runs: Sequence[Feeds], chosen: Refinement) -> tuple[list[Feeds], list[Feeds]]:
    """The runs that are held out, and those that are learned from; each run is one sample, or a fixed batch of them."""
    count = sum(map(found.count, runs))
    if count < FEWEST or len(runs) < 2:
        raise CalibrationError(
            f"refining needs {FEWEST} samples in 2 runs or more, to learn from and to hold out; the data hold {count} "
            f"in {len(runs)}"
        )
    order = np.random.default_rng(chosen.seed).permutation(len(runs))
    cut = min(len(runs) - 1, max(1, round(chosen.held_out * len(runs))))
    return [runs[i] for i in order[:cut]], [runs[i] for i in order[cut:]]
