"""Less of a model, without training: channels that are really removed.

`eightbit.prune` follows the channels of every layer through the graph (`follow`), ranks them (`importance`), chooses
what goes by a budget of multiplications (`select`), lets the layers behind make up for it (`compensate`) and cuts
(`cut`).
"""

from __future__ import annotations

from typing import Annotated, Any

from eightbit.data.replay import replayable
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError
from eightbit.model import Model, with_data
from eightbit.pruning.channels import channels
from eightbit.pruning.compensate import compensated
from eightbit.pruning.cut import cut
from eightbit.pruning.importance import Importance, Magnitude, Reconstruction
from eightbit.pruning.macs import sample_shapes
from eightbit.pruning.select import select
from eightbit.quant.observe.calibrate import Progress
from eightbit.values.fields import Above, AtLeast, Between, argument


def prune(
    model: Any,
    data: Any = None,
    *,
    macs: float,
    importance: Importance | None = None,
    multiple: int = 1,
    floor: float = 0.1,
    compensate: bool | None = None,
    progress: Progress | None = None,
) -> Model:
    """A float model with fewer channels: at most the share `macs` of its multiplications for one sample is left.

    `model` is what `load` returns or accepts, `data` inputs as `quantize` takes them; a few hundred samples without
    labels do. Channels that only make sense together go together: those of a residual stage, a depthwise convolution,
    every group of a grouped one, the hidden units of a transformer's feed-forward layers, whole heads of attention.
    Outputs of the model keep theirs. `importance` ranks them: `Reconstruction()` by what the outputs lose on the data
    (the default with data), `Magnitude()` by weights (the default without). A group that loses channels keeps a number
    that `multiple` divides, and at least the share `floor`. With `compensate` (the default with data) the weights and
    biases of all layers are fitted anew, so that they give on the data what they gave.

    Raises QuantizationError where nothing can be removed or the budget cannot be met, naming the layers and what holds
    them; CalibrationError for data that do not fit, or where they are needed and missing; LoadError.
    """
    share = argument("macs", macs, Annotated[float, Above(0, 1)])
    least = argument("floor", floor, Annotated[float, Between(0, 1)])
    step = argument("multiple", multiple, Annotated[int, AtLeast(1)])
    chosen = argument("importance", importance, Importance | None) or (
        Magnitude() if data is None else Reconstruction()
    )
    fit = argument("compensate", compensate, bool | None)
    model, data = with_data(model, data)
    if fit and data is None:
        raise CalibrationError("compensate=True needs data: weights are fitted to what layers give on them")
    graph = model.ir
    data = None if data is None else replayable(data, specs(graph))
    found = channels(graph, sample_shapes(graph, data))
    keep = select(found, chosen.scores(found, data, progress), share, multiple=step, floor=least)
    if fit or (fit is None and data is not None):
        graph = compensated(found, keep, data, progress=progress)
    return Model(cut(graph, found, keep))
