"""From a model to a module that learns, in one call."""

from __future__ import annotations

from typing import Any

from eightbit.errors import MissingExtra
from eightbit.model import QuantizedModel, quantize
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.observe.calibrate import Progress


def trainable(
    model: Any, calibration: Any = None, recipe: Recipe | None = None, *, progress: Progress | None = None
) -> Any:
    """A `torch.nn.Module` whose forward pass is the int8 model's own arithmetic, and whose backward pass has gradients.

    `model`, `calibration` and `recipe` are what `quantize` takes: training starts from the solution of post-training
    quantization. A `QuantizedModel` that `quantize` returned needs no more. Train it by any loop, or by `eightbit.fit`;
    `eightbit.quantize(module)` is the int8 model that was trained, integer for integer. BatchNorm is folded before
    training begins, as it is at inference, and so has nothing to freeze. Raises as `quantize`; QuantizationError for a
    model without layers between calibrated codes, MissingExtra without PyTorch.
    """
    q = (
        model
        if isinstance(model, QuantizedModel)
        else quantize(model, calibration, recipe, progress=progress)
    )
    try:
        from eightbit.train.torch_module import Trainable
    except ImportError as cause:
        raise MissingExtra("torch", "torch") from cause
    return Trainable(q)
