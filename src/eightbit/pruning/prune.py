"""Less of a model, without training: branches and channels that are really removed, weights that become zero.

`eightbit.prune` removes whole residual branches (`branches`); it follows the channels of every layer through the graph
(`follow`), ranks them (`importance`), chooses what goes by a budget of multiplications (`select`), lets the layers
behind make up for it (`compensate`) and cuts (`cut`). Zeros are chosen one by one (`zeros`).
"""

from __future__ import annotations

from typing import Annotated, Any

from eightbit.data.replay import replayable
from eightbit.data.specs import specs
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.model import Model, with_data
from eightbit.pruning.branches import without_branches
from eightbit.pruning.channels import channels
from eightbit.pruning.compensate import compensated
from eightbit.pruning.cut import cut
from eightbit.pruning.importance import Importance, Magnitude, Reconstruction
from eightbit.pruning.macs import multiplications, sample_shapes
from eightbit.pruning.select import select
from eightbit.pruning.sparsity import Sparsity
from eightbit.pruning.zeros import with_zeros
from eightbit.quant.observe.calibrate import Progress
from eightbit.values.fields import Above, AtLeast, Between, argument


def prune(
    model: Any,
    data: Any = None,
    *,
    macs: float | None = None,
    branches: int = 0,
    sparsity: Sparsity | float | None = None,
    pattern: str | None = None,
    importance: Importance | None = None,
    multiple: int = 1,
    floor: float = 0.1,
    compensate: bool | None = None,
    progress: Progress | None = None,
) -> Model:
    """A float model with fewer channels, with weights that are zero, or both. Nothing is trained.

    `model` is what `load` returns or accepts, `data` inputs as `quantize` takes them; a few hundred samples without
    labels do. With `compensate` (the default with data) the weights and biases of all layers are fitted anew, so that
    they give on the data what they gave.

    `macs`: at most this share of the multiplications for one sample is left. Channels that only make sense together go
    together: those of a residual stage, a depthwise convolution, every group of a grouped one, the hidden units of a
    transformer's feed-forward layers, whole heads of attention. Outputs of the model keep theirs. `importance` ranks
    them: `Reconstruction()` by what the outputs lose on the data (the default with data), `Magnitude()` by weights (the
    default without), and where `model` is a torch module `BatchNormScale()` and, by the gradients of labelled data,
    `Taylor()`. A group that loses channels keeps a number that `multiple` divides, and no less than the share
    `floor`.

    `sparsity` is the share of zero weights, or a `Sparsity`; `pattern="2:4"` keeps two of every four weights along the
    input channels. Shapes stay, and so does the time on dense kernels; the file of `save_weights` shrinks. The zeros
    stay zero codes however `quantize` rounds, and in training.

    Raises QuantizationError where nothing can be removed or the budget cannot be met, naming the layers and what holds
    them; CalibrationError for data that do not fit, or where they are needed and missing; LoadError.
    """
    share = argument("macs", macs, Annotated[float, Above(0, 1)] | None)
    zeros = _sparsity(sparsity, pattern)
    least = argument("floor", floor, Annotated[float, Between(0, 1)])
    count = argument("branches", branches, Annotated[int, AtLeast(0)])
    step = argument("multiple", multiple, Annotated[int, AtLeast(1)])
    chosen = argument("importance", importance, Importance | None)
    fit = argument("compensate", compensate, bool | None)
    if share is None and zeros is None and not count:
        raise QuantizationError('say what shall go: macs=0.5, branches=1, sparsity=0.9 or pattern="2:4"')
    source, labelled = model, data
    model, data = with_data(model, data)
    graph = model.ir
    if fit and data is None:
        raise CalibrationError("compensate=True needs data: weights are fitted to what layers give on them")
    if count and data is None:
        raise CalibrationError(
            f"branches={count} needs data: outputs on them tell which branches are missed least"
        )
    fit = data is not None if fit is None else fit
    data = None if data is None else replayable(data, specs(graph))
    if count:
        graph = without_branches(graph, count, data, compensate=fit, progress=progress)
    whole = 0 if share is None else multiplications(model.ir, data)
    if share is not None and multiplications(graph, data) > share * whole:
        found = channels(graph, sample_shapes(graph, data))
        ranking = chosen or (Magnitude() if data is None else Reconstruction())
        seen = data if isinstance(ranking, Reconstruction) else labelled
        scores = ranking.scores(found, seen, source=source, progress=progress)
        keep = select(found, scores, share, whole=whole, multiple=step, floor=least)
        fitted = compensated(found, keep, data, progress=progress) if fit else graph
        graph = cut(fitted, found, keep)
    if zeros is not None:
        graph = with_zeros(graph, zeros, data, compensate=fit, progress=progress)
    return Model(graph)


def _sparsity(sparsity: Sparsity | float | None, pattern: str | None) -> Sparsity | None:
    """What `sparsity` and `pattern` say together."""
    given = argument("sparsity", sparsity, Sparsity | Annotated[float, Between(0, 0.999)] | None)
    text = argument("pattern", pattern, str | None)
    if given is not None and text is not None:
        raise QuantizationError(f"sparsity={sparsity!r} and pattern={pattern!r}: give one of them")
    if text is not None:
        return Sparsity(pattern=text)
    return given if given is None or isinstance(given, Sparsity) else Sparsity(given)
