"""What of a prepared float graph can be integer, whatever a recipe will choose: each node's form, or why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from eightbit.graph.forms import Form, form_of, refusal
from eightbit.graph.pickling import HoldsGraph
from eightbit.quant.choose.masks import around_masks, constant_masks


@dataclass(frozen=True)
class Capable(HoldsGraph):
    """A graph, and for each of its nodes by name either the form in which it can be integer, or why it cannot."""

    model: ir.Model
    forms: Mapping[str, Form]
    refusals: Mapping[str, str]

    def named(self, *forms: Form) -> tuple[str, ...]:
        """The nodes of these forms, in the order of the graph."""
        return tuple(name for name, form in self.forms.items() if form in forms)

    def without(self, reasons: Mapping[str, str]) -> Capable:
        """The same, but for the nodes that have a form and are named in `reasons`: they are refused for those."""
        kept = {name: form for name, form in self.forms.items() if name not in reasons}
        lost = {name: reasons[name] for name in self.forms if name in reasons}
        return Capable(self.model, kept, {**self.refusals, **lost})


def capable(model: ir.Model) -> Capable:
    """What each node of a prepared graph can be; masks that are constants are seen to."""
    forms, refusals = {}, {}
    for node in model.graph:
        assert node.name
        reason = refusal(node)
        if reason is None:
            forms[node.name] = form_of(node)
        else:
            refusals[node.name] = reason
    return Capable(model, forms, refusals).without(around_masks(model, constant_masks(model)))
