"""Let the layers behind make up for what was removed, one after the other.

In: a graph and its copy in which no layer reads the removed channels (`cut.masked`). Layer by layer, in the order of
the graph, weights and biases are fitted (`fit`) to the inputs that the layers before, fitted already, give them. So the
errors of earlier layers are taken into account, too, as in He et al. 2017, arXiv 1707.06168.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from eightbit.pruning.channels import Channels, Keep
from eightbit.pruning.cut import masked
from eightbit.pruning.fit import fits, refit
from eightbit.quant.encode.seen import seen_inputs
from eightbit.quant.encode.walk import Walk
from eightbit.quant.observe.calibrate import Progress


def compensated(channels: Channels, keep: Keep, data: Any, *, progress: Progress | None = None) -> ir.Model:
    """A copy of the graph for `cut`, whose layers make up for the units that `keep` leaves out.

    `data` must bear being read more than once (`data.replay`). Raises CalibrationError for data that do not fit.
    """
    model = channels.model
    work = masked(model, channels, keep)
    reads = {
        str(use.node.name): channels.kept(use.axes[use.read], keep)
        for use in channels.found.uses
        if use.read is not None
    }
    layers = [str(n.name) for n in model.graph if fits(n)]
    nodes, copies = ({str(node.name): node for node in graph.graph} for graph in (model, work))
    walk = Walk(model, work, layers, data)
    done = 0
    for wave, names in enumerate(walk.waves):
        seen = seen_inputs([nodes[name] for name in names], walk.inputs(wave))
        for name in names:
            refit(nodes[name], copies[name], seen[name], reads.get(name))
            done += 1
            if progress is not None:
                progress("compensate", done)
    return work
