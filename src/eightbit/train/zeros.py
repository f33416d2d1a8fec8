"""Weights that a training sets to zero, and that stay there.

In: a module and a `Sparsity`. Before a step the gradients tell which weights are drawn to zero; after it the weights
that are out are zero again. A `Trainable`'s weight is `start + number * unit` (`plan`), so that the number of a zero is
`-start / unit`: its code is 0 in every run, and in the int8 model. What is zero at the start stays zero.

Movement scores sum up `-w dL/dw`: a weight that the steps move away from zero has a high one, whatever its size.
Source: Sanh et al. 2020, arXiv 2005.07683, equation 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from eightbit.graph.sparse import mark_sparse, sparse_layers
from eightbit.pruning.sparsity import Sparsity, masks
from eightbit.train.torch_module import Trainable, parameter_name

STEP = 0.01
"""How far the share of zeros must rise, as a part of its end, before new ones are chosen."""
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class TrainedZeros:
    """The weights of `module` by the name of their parameter, which of them are left, and what speaks for each."""

    def __init__(self, module: nn.Module, sparsity: Sparsity) -> None:
        self.sparsity, self._module = sparsity, module
        self._inputs: dict[str, int] = {}
        self._start: dict[str, Tensor] = {}
        self._unit: dict[str, Tensor] = {}
        parameters = dict(module.named_parameters())
        for name, axis, start, unit in _weights(module):
            self._inputs[name] = axis
            self._start[name], self._unit[name] = (x.to(parameters[name].device) for x in (start, unit))
        self._parameters = {name: parameters[name] for name in self._inputs}
        self.left = {name: self._value(name) != 0 for name in self._inputs}
        moves = sparsity.method == "movement"
        self.scores = {name: torch.zeros_like(p) for name, p in self._parameters.items()} if moves else {}
        self._share = 0.0

    def note(self) -> None:
        """Add up the movement that the gradients of this step speak of."""
        for name, score in self.scores.items():
            gradient = self._parameters[name].grad
            if gradient is not None:
                unit = self._unit[name]
                slope = torch.where(unit == 0, 0.0, gradient / unit)
                score -= self._value(name) * slope

    def hold(self, part: float, *others: Mapping[str, Tensor] | None) -> None:
        """Choose anew what the schedule says after the `part` of the training, and set it to zero.

        `others` are further values of the module's parameters, such as their averages.
        """
        if self._due(part):
            self._choose(part)
        with torch.no_grad():
            for values in (self._parameters, *(other for other in others if other is not None)):
                for name in self.left:
                    values[name].copy_(torch.where(self.left[name], values[name], self._zero(name)))

    def finish(self, *others: Mapping[str, Tensor] | None) -> None:
        """The last choice; a `Trainable` remembers which of its layers are sparse."""
        self.hold(1.0, *others)
        if isinstance(self._module, Trainable):
            plan = self._module.plan
            layers = [op for op, keys in plan.layers.items() if not self.left[_parameter(keys.weight)].all()]
            mark_sparse(plan.graph, sparse_layers(plan.graph) | set(layers))

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"left": self.left, "scores": self.scores, "share": self._share}

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.left, self.scores, self._share = dict(state["left"]), dict(state["scores"]), state["share"]

    def _due(self, part: float) -> bool:
        if self.sparsity.pattern is not None:
            begin = self.sparsity.end if self.scores else self.sparsity.begin
            return self._share == 0.0 and part >= begin
        now = self.sparsity.at(part)
        return now > self._share and (
            now - self._share >= STEP * self.sparsity.share or part >= self.sparsity.end
        )

    def _choose(self, part: float) -> None:
        self._share = self.sparsity.at(part) if self.sparsity.pattern is None else 1.0
        scores = {}
        for name, left in self.left.items():
            score = self.scores[name] if self.scores else self._value(name).abs()
            scores[name] = torch.where(left, score, -torch.inf).cpu().numpy().astype(np.float64)
        share = None if self.sparsity.pattern is not None else self._share
        for name, mask in masks(scores, self._inputs, self.sparsity, share).items():
            self.left[name] &= torch.from_numpy(mask).to(self.left[name].device)

    def _value(self, name: str) -> Tensor:
        return self._start[name] + self._parameters[name].detach() * self._unit[name]

    def _zero(self, name: str) -> Tensor:
        unit = self._unit[name]
        return torch.where(unit == 0, 0.0, -self._start[name] / unit)


def _parameter(key: str) -> str:
    """The name of a `Trainable`'s parameter for a key of its plan."""
    return f"learned.{parameter_name(key)}"


def _weights(module: nn.Module) -> list[tuple[str, int, Tensor, Tensor]]:
    """The weights of a module's layers: the parameter's name, the axis of inputs, and `start` and `unit` of values."""
    if isinstance(module, Trainable):
        found = []
        for key in dict.fromkeys(layer.weight for layer in module.plan.layers.values()):
            start, unit = (
                torch.from_numpy(np.array(part[key])) for part in (module.plan.start, module.plan.units)
            )
            found.append((_parameter(key), 0 if start.ndim == 2 else 1, start, unit.expand_as(start)))
        return found
    return [
        (
            f"{name}.weight" if name else "weight",
            1,
            torch.zeros_like(part.weight),
            torch.ones_like(part.weight),
        )
        for name, part in module.named_modules()
        if isinstance(part, WEIGHTED)
    ]
