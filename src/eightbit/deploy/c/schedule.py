"""The order of a plan's steps and the arena for it: the smallest of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from eightbit.deploy.c.arena import Arena, Buffer, planned
from eightbit.deploy.c.steps import Plan, Step


def scheduled(plan: Plan) -> tuple[Plan, Arena]:
    """The plan in the order whose arena is smallest, and that arena. Inputs and outputs are the caller's memory."""
    found = [(replace(plan, steps=steps), arena_for(plan, steps)) for steps in _orders(plan)]
    return min(found, key=lambda pair: pair[1].size)


def arena_for(plan: Plan, steps: Sequence[Step]) -> Arena:
    """An arena for all that lies between inputs and outputs."""
    outside = {port.buffer for port in (*plan.inputs, *plan.outputs)} | set(plan.constants)
    last = {name: t for t, step in enumerate(steps) for name in step.reads}
    buffers: list[Buffer] = []
    gaps: dict[tuple[str, str], int] = {}
    for t, step in enumerate(steps):
        if step.scratch is not None and step.scratch.size:
            buffers.append(Buffer(step.scratch.name, step.scratch.size, t, t))
        if step.writes not in outside:
            buffers.append(Buffer(step.writes, plan.sizes[step.writes], t, last.get(step.writes, t)))
            gaps |= {(step.writes, name): gap for name, gap in step.gaps.items() if name not in outside}
    return planned(buffers, gaps)


def _orders(plan: Plan) -> Iterator[tuple[Step, ...]]:
    """The graph's own order, then greedy ones: of the steps that can run, the one that leaves least alive."""
    yield plan.steps
    for late in (False, True):
        order = tuple(_greedy(plan, late=late))
        if order != plan.steps:
            yield order


def _greedy(plan: Plan, *, late: bool) -> Iterator[Step]:
    written = {step.writes for step in plan.steps}
    readers = {name: sum(name in step.reads for step in plan.steps) for name in written}
    kept = {port.buffer for port in plan.outputs}
    left, done = list(plan.steps), set[str]()

    def growth(step: Step) -> int:
        freed = sum(plan.sizes[n] for n in step.reads if n in written - kept and readers[n] == 1)
        return (0 if step.writes in kept else plan.sizes[step.writes]) - freed

    while left:
        ready = [step for step in left if all(name in done or name not in written for name in step.reads)]
        chosen = min(reversed(ready) if late else ready, key=growth)
        left.remove(chosen)
        done.add(chosen.writes)
        for name in chosen.reads:
            if name in written:
                readers[name] -= 1
        yield chosen
