"""Which layer gets how many bits: the least noise for a given number of bytes, and the best next spend.

In: a `Sensitivity`. Out: plans, i.e. bits by node. Noise adds up over the sources and bytes over the layers, so the
search is a knapsack; greedy steps by noise per byte on the lower convex hull of each layer give the best plan of its
size, up to the last step. Source: Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of
quantizers".

Only widths that a file stores as such count as fewer bits: codes of 3 bits take 4 in it, and codes of 5 to 7 take 8.
Sixteen bits, for activations or weights, are spent only where eight are not enough, because integer kernels do not take
them (`upgrades`); float is the last resort.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from eightbit.quant.choose.patterns import named
from eightbit.quant.choose.recipe import FLOAT, Keep, Layer, Recipe
from eightbit.safety.probes import Kind
from eightbit.tuning.sensitivity import Sensitive, Sensitivity

STORED = (2, 4, 8)
"""Widths of weights in a file that integer kernels read."""
WIDE = 16
FLOAT_BITS = 32


@dataclass(frozen=True)
class Plan:
    """Bits of weights by layer, the nodes that write activations of 16 bits, and the layers left in float."""

    weights: Mapping[str, int]
    wide: frozenset[str] = field(default_factory=frozenset)
    floats: frozenset[str] = field(default_factory=frozenset)

    def recipe(self, base: Recipe) -> Recipe:
        """`base` with an override, named after the node, wherever this plan departs from it."""
        overrides: dict[str, Keep | Layer] = dict(base.overrides)
        for name in [*self.weights, *(n for n in sorted(self.wide) if n not in self.weights)]:
            bits = self.weights.get(name, base.weights.bits)
            own = None if bits == base.weights.bits else replace(base.weights, bits=bits)
            weights = FLOAT if name in self.floats else own
            activations = replace(base.codes, bits=WIDE) if name in self.wide else None
            if weights is not None or activations is not None:
                overrides.pop(named(name), None)  # the last one decides, so it has to come last
                overrides[named(name)] = Layer(weights=weights, activations=activations)
        return replace(base, overrides=overrides)


def uniform(found: Sensitivity, bits: int) -> Plan:
    """Every layer's weights at `bits`, every activation at 8."""
    return Plan({s.node: bits for s in found.weights})


def mean_bits(found: Sensitivity, plan: Plan) -> float:
    """Bits a weight in the mean, as a file stores them."""
    total = sum(s.count for s in found.weights)
    return sum(s.count * plan.weights[s.node] for s in found.weights) / total


def noise(found: Sensitivity, plan: Plan) -> float:
    """The noise on the outputs that a plan makes, relative to the outputs."""
    weights = sum(s.noise[plan.weights[s.node]] for s in found.weights)
    return weights + sum(s.noise[WIDE if s.node in plan.wide else 8] for s in found.activations)


def allocate(found: Sensitivity, bits: float) -> Plan:
    """The widths with the least noise for a mean of `bits` bits a weight at most (and of STORED's least at least)."""
    weights = {s.node: STORED[0] for s in found.weights}
    total = sum(s.count for s in found.weights)
    left = bits * total - STORED[0] * total
    steps = sorted((step for s in found.weights for step in _steps(s)), key=lambda step: -step[0])
    for _, node, before, after, cost in steps:
        if weights[node] == before and cost <= left:
            weights[node] = after
            left -= cost
    return Plan(weights)


def _steps(s: Sensitive) -> Iterator[tuple[float, str, int, int, int]]:
    """Steps up the lower convex hull of a layer's noise over bits: (noise saved a bit, node, from, to, bits)."""
    at = STORED[0]
    while at < STORED[-1]:
        gains = {b: (s.noise[at] - s.noise[b]) / ((b - at) * s.count) for b in STORED if b > at}
        best = max(gains, key=lambda b: (gains[b], b))
        yield gains[best], s.node, at, best, (best - at) * s.count
        at = best


def upgrades(
    found: Sensitivity, start: Plan, touched: Mapping[str, frozenset[str]], spare: float
) -> tuple[Plan, ...]:
    """`start`, and what comes of it one step after another: 16 bits for an activation or a layer's weights, then float.

    Each step is the one that saves most noise for what it costs, as long as its weights fit in `spare` bits. The cost
    is the share of the network's multiplications that leave the integer kernels by it, plus that of the weights which
    double, plus a hundredth, so that small tensors do not come first for next to nothing. `touched` names the layers
    that read or write the tensor of each node: a layer beside one wide tensor is slow already, so the next one is free.
    """
    macs = sum(s.macs for s in found.weights) or 1
    count = sum(s.count for s in found.weights)
    share = {s.node: s.macs / macs for s in found.weights}
    slow: set[str] = set()
    plans, left = [start], list(found.sources)

    def layers(s: Sensitive) -> frozenset[str]:
        return frozenset({s.node}) if s.kind is Kind.WEIGHTS else touched.get(s.node, frozenset())

    def worth(s: Sensitive) -> float:
        now, size = (start.weights[s.node], s.count / count) if s.kind is Kind.WEIGHTS else (8, 0.0)
        cost = 0.01 + size + sum(share[name] for name in layers(s) - slow)
        return (s.noise[now] - s.noise[WIDE]) / cost

    while left:
        best = max(left, key=lambda s: (worth(s), s.kind.value, s.node))
        left.remove(best)
        last = plans[-1]
        if best.kind is Kind.WEIGHTS:
            bits = (WIDE - start.weights[best.node]) * best.count
            if bits > spare:
                continue
            spare -= bits
            plans.append(replace(last, weights={**last.weights, best.node: WIDE}))
        else:
            plans.append(replace(last, wide=last.wide | {best.node}))
        slow |= layers(best)
    for s in sorted(found.weights, key=lambda s: (-s.noise[WIDE] / s.count, s.node)):
        last = plans[-1]
        bits = (FLOAT_BITS - last.weights[s.node]) * s.count
        if bits <= spare:
            spare -= bits
            plans.append(replace(last, floats=last.floats | {s.node}))
    return tuple(plans)
