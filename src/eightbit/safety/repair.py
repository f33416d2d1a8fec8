"""A quantization that looks at its own outputs: the last step of `eightbit.quantize`.

In: the float graph, its calibration data, the stage that the codes were finished from. Out: a quantized graph whose
outputs are near enough to the float ones, and a `Check` that says how near, and what it took.

Where an output lies below the floor, one pass of probes ranks the weights and activations by the noise that each puts
on the outputs. The first of them get 16 bits, as few as it takes, found by bisection over whole quantized models that
run. That is for the default recipe alone: any other is a choice, which is carried out, checked and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, log10
from typing import Any
from warnings import warn

import onnx_ir as ir

from eightbit.data.feeds import Feeds
from eightbit.deploy.sessions import OnnxRuntime
from eightbit.errors import CalibrationError, EngineError, QuantizationError
from eightbit.graph.run import FloatSession
from eightbit.graph.samples import samples
from eightbit.quant.choose.patterns import named
from eightbit.quant.choose.recipe import FLOAT, Layer, Override, Recipe
from eightbit.quant.quantize import Quantized, finish
from eightbit.quant.stage import Stage, encoded
from eightbit.safety.check import Check, Cost, compared
from eightbit.safety.design import one_by_one
from eightbit.safety.parts import Joint, apart, joints, shares
from eightbit.safety.probes import Kind, Source, probe

SAMPLES = 8
"""Samples that go through both models."""
PROBED = 1
"""Samples of these for the probes, which take a run of each for every source."""
WIDE = 16

_Overrides = Callable[[Recipe, Sequence[Cost]], dict[str, Override]]
Result = tuple[Quantized, Recipe, Check]
"""A quantized graph, the recipe that it was made by, and what its outputs are worth."""


def checked(
    model: ir.Model, data: Any, staged: Stage, quantized: Quantized, recipe: Recipe, floor: float
) -> Result:
    """`quantized`, made from `staged` by the settled `recipe`, or what takes its place, and what was found.

    `data` can be read again. Warns where the default recipe stays below the floor whatever gets 16 bits.
    """
    if data is None:
        return quantized, recipe, Check(floor=floor, why="without calibration data there is nothing to run")
    session, runs, count = FloatSession(model), [], 0
    stream = samples(model, data, CalibrationError)
    for feeds in stream:
        runs.append(feeds)
        count += stream.count(feeds)
        if count >= SAMPLES:
            break
    joined = joints(model)
    exact = [apart(session.run(feeds), joined) for feeds in runs]
    trial = _Trial(staged, runs, exact, joined, shares(model), Check(samples=count, floor=floor))
    try:
        check = trial.check(quantized)
    except EngineError as cause:
        return quantized, recipe, Check(floor=floor, why=str(cause))
    if not check.low or not recipe.calibrates:
        return quantized, recipe, check
    costs = _costs(staged, quantized, recipe, runs[:PROBED])
    check = replace(check, costs=costs)
    if recipe != Recipe(processor=recipe.processor).settled(True):
        return quantized, recipe, check
    for given, overrides in (("16 bits", _wide), ("float", _in_float)):

        def attempt(count: int, overrides: _Overrides = overrides) -> Result | None:
            return trial.above(replace(recipe, overrides=overrides(recipe, costs[:count])))

        found = _fewest(attempt, len(costs))
        if found is not None:
            count, (graph, wider, after) = found
            return graph, wider, replace(after, before=check.low, costs=costs[:count], given=given)
    check = replace(check, why="neither 16 bits nor float for the first of these mends it")
    warn(check.remarks[-1], stacklevel=3)
    return quantized, recipe, check


@dataclass(frozen=True)
class _Trial:
    """Samples, the float model's outputs and how to read them, the stage behind all trials, and a check to fill in."""

    staged: Stage
    runs: Sequence[Feeds]
    exact: Sequence[Mapping[str, Any]]
    joined: Mapping[str, Joint]
    shares: Collection[str]
    empty: Check

    def check(self, quantized: Quantized) -> Check:
        """How near the outputs of a quantized graph are. Raises EngineError where ONNX Runtime does not run it."""
        session = OnnxRuntime(quantized[0])
        found = [apart(session.run(feeds), self.joined) for feeds in self.runs]
        return replace(self.empty, outputs=compared(self.exact, found, self.shares))

    def above(self, recipe: Recipe) -> Result | None:
        """What comes of `recipe`; None for outputs below the floor, and where nothing comes of it that runs."""
        try:
            quantized = finish(self.staged, recipe)
            check = self.check(quantized)
        except (QuantizationError, EngineError):
            return None
        return None if check.low else (quantized, recipe, check)


def _fewest(attempt: Callable[[int], Result | None], most: int) -> tuple[int, Result] | None:
    """The smallest number, up to `most`, whose attempt has a result, and that; None if none has.

    A larger number has one where a smaller has, so that doubling and bisection find it.
    """
    few, many = 0, 1
    while (best := attempt(many)) is None:
        if many >= most:
            return None
        few, many = many, min(2 * many, most)
    while many - few > 1:
        middle = (few + many) // 2
        if (found := attempt(middle)) is None:
            few = middle
        else:
            many, best = middle, found
    return many, best


def _wide(recipe: Recipe, costs: Sequence[Cost]) -> dict[str, Override]:
    """Overrides that give the sources `costs` 16 bits."""
    choices: dict[str, dict[str, Any]] = {}
    for cost in costs:
        own = recipe.weights if cost.kind is Kind.WEIGHTS else recipe.codes
        choices.setdefault(named(cost.node), {})[cost.kind.value] = replace(own, bits=WIDE)
    return {name: Layer(**choice) for name, choice in choices.items()}


def _in_float(recipe: Recipe, costs: Sequence[Cost]) -> dict[str, Override]:
    """Overrides that leave the nodes around the sources `costs` in float."""
    return {named(node): FLOAT for cost in costs for node in cost.touched}


def _costs(staged: Stage, quantized: Quantized, recipe: Recipe, runs: Sequence[Feeds]) -> tuple[Cost, ...]:
    """Every source of noise in a quantized graph, the largest first."""
    _, placement, params = quantized
    layers = encoded(staged, placement, params, recipe)
    codes = {name: params[name] for name in placement.observed}
    noise = probe(staged.model, layers, codes, runs, one_by_one).power
    writers = {str(out.name): str(node.name) for node in staged.model.graph for out in node.outputs}
    touched: dict[str, list[str]] = {}
    for node in staged.model.graph:
        for name in (str(value.name) for value in (*node.inputs, *node.outputs) if value is not None):
            if name in placement.sources:
                touched.setdefault(placement.sources[name], []).append(str(node.name))
    known = {source: power if isfinite(power) else inf for source, power in noise.items()}

    def cost(source: Source) -> Cost:
        alone = -10 * log10(known[source]) if known[source] > 0 else inf
        if source.kind is Kind.WEIGHTS:
            return Cost(source.kind, source.name, alone, (source.name,))
        return Cost(source.kind, writers.get(source.name, source.name), alone, tuple(touched[source.name]))

    return tuple(map(cost, sorted(known, key=lambda source: -known[source])))
