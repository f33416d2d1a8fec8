"""Let the layers make up for what was removed, one after the other.

In: a graph, and a copy of it with less in it: no layer reads the removed channels (`cut.masked`), or weights are zero.
Layer by layer, in the order of the graph, weights and biases are fitted (`fit`) to the inputs that the layers before,
fitted already, give them. So the errors of earlier layers are taken into account, too, as in He et al. 2017, arXiv
1707.06168.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from eightbit.graph.model import constant
from eightbit.graph.sparse import kept_zeros, sparse_layers
from eightbit.pruning.channels import Channels, Keep
from eightbit.pruning.cut import masked
from eightbit.pruning.fit import fits, refit
from eightbit.quant.encode.seen import seen_inputs
from eightbit.quant.encode.walk import Walk
from eightbit.quant.observe.calibrate import Progress

_ByLayer = Mapping[str, NDArray[np.bool_]]


def compensated(channels: Channels, keep: Keep, data: Any, *, progress: Progress | None = None) -> ir.Model:
    """A copy of the graph for `cut`, whose layers make up for the units that `keep` leaves out.

    `data` must bear being read more than once (`data.replay`). Raises CalibrationError for data that do not fit.
    """
    work = masked(channels.model, channels, keep)
    reads = {
        str(use.node.name): channels.kept(use.axes[use.read], keep)
        for use in channels.found.uses
        if use.read is not None
    }
    fit_layers(channels.model, work, data, reads=reads, progress=progress)
    return work


def fit_layers(
    model: ir.Model,
    work: ir.Model,
    data: Any,
    *,
    reads: _ByLayer | None = None,
    zeros: _ByLayer | None = None,
    only: Collection[str] | None = None,
    progress: Progress | None = None,
) -> None:
    """Fit the layers of `work`, in place, to what those of `model` give; what stays zero are `zeros`, by layer.

    Without `only` all that can be fitted are.

    `reads` are the channels that a layer still sums over. Zeros of layers that were pruned before stay, too.
    """
    nodes, copies = ({str(node.name): node for node in graph.graph} for graph in (model, work))
    layers = [name for name, node in nodes.items() if fits(node) and (only is None or name in only)]
    sparse = sparse_layers(model)
    walk = Walk(model, work, layers, data)
    done = 0
    for wave, names in enumerate(walk.waves):
        seen = seen_inputs([nodes[name] for name in names], walk.inputs(wave))
        for name in names:
            weight = constant(nodes[name].inputs[1])
            assert weight is not None
            gone = zeros[name] if zeros and name in zeros else kept_zeros(weight, nodes[name], sparse)
            refit(nodes[name], copies[name], seen[name], (reads or {}).get(name), gone)
            done += 1
            if progress is not None:
                progress("compensate", done)
