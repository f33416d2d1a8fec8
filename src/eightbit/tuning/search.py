"""Find a recipe that meets a budget: `tune`.

The search has four steps, each of which tries whole recipes on real data and leaves a `Trial`:

1. *Knobs*: the given recipe; the same with data-aware rounding, bias correction and searched ranges; that with
   equalized channels. The best goes on.
2. *Sensitivity* of its weights and activations (`sensitivity`), which predicts the noise of every plan.
3. *Weights*: the plan with the least predicted noise for the bytes that the budget allows (`allocation`).
4. *Sixteen bits* for activations and weights where they pay most, one after another, and float for the last ones, as
   far as the budget for bytes allows; the least number of steps whose quality is what was asked for is found by
   section, because quality grows with the steps. Where the budget leaves size free, the least mean number of bits is
   found in the same way.

Predictions only choose what is tried: everything a result says was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from os import cpu_count
from typing import Annotated, Any

import onnx_ir as ir

from eightbit.data.feeds import batches
from eightbit.data.labelled import Labelled
from eightbit.data.replay import bounded, once
from eightbit.errors import CalibrationError
from eightbit.graph.forms import Form, carried, ops
from eightbit.graph.save import file_bytes
from eightbit.model import Model, with_data
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.methods.calibrators import MSE
from eightbit.quant.observe.calibrate import Progress
from eightbit.quant.stage import Stage
from eightbit.report.comparison import measure
from eightbit.tuning.allocation import (
    FLOAT_BITS,
    STORED,
    Plan,
    allocate,
    mean_bits,
    uniform,
    upgrades,
)
from eightbit.tuning.sensitivity import SAMPLES, Sensitivity, chosen_samples, measured
from eightbit.tuning.target import Target, Trial, Tuned
from eightbit.tuning.trial import Data, Evaluate, Job, Workers, as_share, measured_trial
from eightbit.tuning.trial import workers as trial_workers
from eightbit.values.fields import argument

FRONT_BITS = (6.0, 4.0, 3.0)
"""Mean bits a weight of the trials that draw the front beside those that the search needs."""
ROUNDS = 30


def tune(
    model: Any,
    calibration: Any,
    evaluate: Evaluate | None = None,
    *,
    target: Target,
    recipe: Recipe | None = None,
    data: Any = None,
    labels: Any = None,
    held_out: Any = None,
    workers: int = 1,
    executor: Any = None,
    progress: Progress | None = None,
) -> Tuned:
    """Search for a recipe that meets `target`, beginning with `recipe` (default: `Recipe()`).

    `model` and `calibration` are what `quantize` takes. Quality is measured on `data` (default: the calibration data):
    agreement with the float model, accuracy if there are labels among them or in `labels`, and `evaluate(model)`, the
    accuracy as a share of a model given as a callable, where it is given. Data that the search measures itself on
    flatter it; give `held_out` data, with labels among them, which are looked at once, at the end, for the figure to
    report.

    `workers` processes of this machine try recipes at the same time, or an `executor` does: anything with
    `submit(function, *arguments)`, such as a concurrent.futures executor or a dask.distributed Client. `evaluate` must
    then be a function that can be pickled. The same arguments give the same result, wherever the trials run.

    A budget that cannot be met gives a result with `met` False and the nearest trial, never an exception. Raises as
    `quantize` and `compare` do for models and data that do not fit, and QuantizationError for a recipe that cannot
    be tuned.

    >>> import torch
    >>> tuned = tune(torch.nn.Linear(64, 64), torch.randn(64, 64), target=Target(bits=4))
    >>> tuned.met, tuned.chosen.bits
    (True, 4.0)
    """
    start = Recipe.of(recipe)
    target = argument("target", target, Annotated[Target, "Target(...) with one limit or more"])
    float_model, calibration = with_data(model, calibration)
    seen = Labelled(calibration, None, float_model.inputs, CalibrationError)
    found = batches(seen, float_model.inputs, CalibrationError)
    inputs = tuple(bounded(found, CalibrationError) if once(calibration) else found)
    if data is None:
        data, labels = inputs, seen.gathered() if labels is None else labels
    chosen_data = Data.of(float_model, data, labels)
    job = Job(
        model=float_model.ir,
        calibration=inputs,
        data=chosen_data,
        float_bytes=len(file_bytes(float_model.ir)),
        evaluate=evaluate,
        float_accuracy=None if evaluate is None else as_share(evaluate(float_model)),
        threads=None if workers == 1 else max(1, (cpu_count() or 1) // max(1, workers)),
    )
    with trial_workers(workers, executor) as pool:
        search = _Search(float_model, job, target, pool, progress)
        return search.run(start, held_out)


def knobs(recipe: Recipe) -> tuple[tuple[Recipe, str], ...]:
    """The recipe itself and its improvements, one knob after another turned to the default."""
    first = recipe.settled(True)
    best = replace(recipe, weights=replace(recipe.weights, rounding=None), bias_correction=True).settled(True)
    fitted = replace(
        first,
        weights=best.weights,
        activations=replace(first.codes, range=MSE()),
        bias_correction=True,
    )
    evened = replace(fitted, equalize=True, smooth=fitted.smooth or True)
    names = ("as given", "+ rounding, biases, ranges", "+ even channels")
    found: dict[str, Recipe] = {}
    for candidate, name in zip((first, fitted, evened), names, strict=True):
        if candidate not in found.values():
            found[name] = candidate
    return tuple((candidate, name) for name, candidate in found.items())


@dataclass
class _Search:
    """One run of `tune`."""

    model: Model
    job: Job
    target: Target
    pool: Workers
    progress: Progress | None
    trials: list[Trial] = field(default_factory=list)

    def run(self, recipe: Recipe, held_out: Any) -> Tuned:
        ladder = self._attempt([*knobs(recipe)])
        base = max(ladder, key=lambda t: t.sqnr_db).recipe  # agreement on some hundred samples is too coarse
        staged = self.job.stage(base)
        found = measured(staged, chosen_samples(self.job.model, self.job.calibration, SAMPLES))
        self.job = replace(self.job, staged=staged, made=[])
        chosen = self._chosen(base, found, staged)
        q = self.job.quantized(chosen.recipe)
        apart = None
        if held_out is not None:
            # `evaluate` knows its own data, which the search has seen: here labels or agreement must do
            last = replace(self.job, data=Data.of(self.model, held_out), evaluate=None)
            apart = measured_trial(last, q, chosen.recipe, "held out")
        return Tuned(chosen.recipe, q, self.target, chosen, tuple(self.trials), found, apart)

    def _chosen(self, base: Recipe, found: Sensitivity, staged: Stage) -> Trial:
        limit = self._bits_allowed(found)
        start = allocate(found, limit)
        plans = upgrades(found, start, touched_by(staged, found), self._spare_bits(found, start))
        best = self._least(plans, base, "steps to 16 bits x {}")
        if best is not None and self.target.size is None and self.target.bits is None:
            known = plans[best[0]]
            fine = {name: bits for name, bits in known.weights.items() if bits > STORED[-1]}
            grid = [STORED[0] + 0.25 * i for i in range(4 * (STORED[-1] - STORED[0]) + 1)]
            narrow = [replace(known, weights={**allocate(found, b).weights, **fine}) for b in grid]
            best = self._least(narrow, base, "bits {}") or best
        self._draw_front(base, found, limit)
        return best[1] if best is not None and not self.target.misses(best[1]) else self._nearest()

    def _bits_allowed(self, found: Sensitivity) -> float:
        """The mean bits a weight that the budget for bytes leaves."""
        limit = float(STORED[-1])
        if self.target.bits is not None:
            limit = min(limit, self.target.bits)
        if self.target.size is not None:
            at_eight = self.trials[0].size * self.job.float_bytes
            total = sum(s.count for s in found.weights)
            spare = self.target.size * self.job.float_bytes - at_eight
            limit = min(limit, STORED[-1] + 8 * spare / total)
        return max(limit, float(STORED[0]))

    def _spare_bits(self, found: Sensitivity, plan: Plan) -> float:
        """Bits that the budget leaves beside those of a plan's weights; 0.3 % are kept for names."""
        total = sum(s.count for s in found.weights)
        used = total * mean_bits(found, plan)
        limits = [float(FLOAT_BITS) * total]
        if self.target.bits is not None:
            limits.append(self.target.bits * total)
        if self.target.size is not None:
            rest = self.trials[0].size * self.job.float_bytes * 8 - total * self.trials[0].bits
            limits.append(0.997 * self.target.size * self.job.float_bytes * 8 - rest)
        return min(limits) - used

    def _least(self, plans: Sequence[Plan], base: Recipe, name: str) -> tuple[int, Trial] | None:
        """The first of `plans`, whose quality grows, that has the quality asked for, and its trial; None if none has.

        It is also the smallest and the fastest of those that have it. The places between a plan that fails and one
        that does not are cut into as many parts as there are workers, plus one.
        """

        def attempt(places: Sequence[int]) -> list[Trial]:
            return self._attempt([(plans[i].recipe(base), name.format(i)) for i in places])

        first = attempt([0])[0]
        if not self.target.lacks(first):
            return 0, first
        last = attempt([len(plans) - 1])[0] if len(plans) > 1 else first
        if self.target.lacks(last):
            return None
        low, high, best = 0, len(plans) - 1, last
        while high - low > 1:
            parts = min(self.pool.count + 1, high - low)
            places = [low + (high - low) * i // parts for i in range(1, parts)]
            for place, trial in zip(places, attempt(places), strict=True):
                if not self.target.lacks(trial):
                    high, best = place, trial
                    break
                low = place
        return high, best

    def _draw_front(self, base: Recipe, found: Sensitivity, limit: float) -> None:
        """Some trials of fewer and of more bytes than the budget's."""
        wanted = [b for b in (*FRONT_BITS, 8.0) if abs(b - limit) > 0.25]
        plans = [allocate(found, b) if b < 8 else uniform(found, 8) for b in wanted]
        tasks = [(p.recipe(base), f"front, {mean_bits(found, p):.1f} bits") for p in plans]
        known = {t.step for t in self.trials}
        self._attempt([task for task in tasks if task[1] not in known])

    def _nearest(self) -> Trial:
        """The trial that breaks the fewest limits; among those, the one of the best quality."""
        return max(self.trials, key=lambda t: (-len(self.target.misses(t)), t.quality))

    def _attempt(self, tasks: list[tuple[Recipe, str]]) -> list[Trial]:
        found = self.pool.run(self.job, tasks)
        if self.target.latency is not None:
            found = [replace(t, latency=self._latency(t.recipe)) for t in found]
        self.trials.extend(found)
        if self.progress is not None:
            self.progress("trials", len(self.trials))
        return found

    def _latency(self, recipe: Recipe) -> float:
        """Time of one sample relative to the float model, here and now: other machines have other clocks."""
        sample = next(iter(chosen_samples(self.job.model, self.job.calibration, 1)))
        return measure(self.model, self.job.quantized(recipe), sample, rounds=ROUNDS, seconds=2.0).ratio


def touched_by(staged: Stage, found: Sensitivity) -> dict[str, frozenset[str]]:
    """The layers that write or read the tensor of each node (or graph input), by the node's name.

    Codes pass through moves, and the clamp that a layer's saturation replaces is written by the layer.
    """
    layers = {s.node for s in found.weights}
    ahead: dict[ir.Value, frozenset[str]] = {}
    touched: dict[str, frozenset[str]] = {}
    graph = staged.model.graph

    def readers(value: ir.Value) -> frozenset[str]:
        names: set[str] = set()
        for node in (use.node for use in value.uses()):
            names |= {str(node.name)} & layers
            if node.op_type in ops(Form.MOVE):
                names.update(*(ahead[out] for out in carried(node)))
        return frozenset(names)

    for node in reversed(list(graph)):
        for out in node.outputs:
            ahead[out] = readers(out)
        before = (
            node.inputs[0].producer()
            if node.op_type in ops(Form.CLAMP) and node.inputs[0] is not None
            else None
        )
        writers = {str(n.name) for n in (node, before) if n is not None} & layers
        touched[str(node.name)] = ahead[node.outputs[0]] | writers
    return touched | {str(value.name): readers(value) for value in graph.inputs}
