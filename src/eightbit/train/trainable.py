"""From a model to a module that learns, in one call."""

from __future__ import annotations

from typing import Any, Literal

from eightbit.errors import MissingExtra
from eightbit.graph.source.keras_model import is_keras
from eightbit.model import QuantizedModel, quantize
from eightbit.quant.choose.recipe import Recipe
from eightbit.quant.observe.calibrate import Progress
from eightbit.values.fields import argument


def trainable(
    model: Any,
    calibration: Any = None,
    recipe: Recipe | None = None,
    *,
    framework: Literal["torch", "keras"] | None = None,
    progress: Progress | None = None,
) -> Any:
    """A `torch.nn.Module`, or `keras.Model`, whose forward pass is the int8 model's arithmetic, with gradients.

    `model`, `calibration` and `recipe` are what `quantize` takes: training starts from the solution of post-training
    quantization. A `QuantizedModel` that `quantize` returned needs no more. A Keras model gives a Keras model, anything
    else a torch module, unless `framework` says otherwise. Train a module by any loop, or by `eightbit.fit`, and a
    Keras model by its `compile` and `fit`; `eightbit.quantize(trained)` is the int8 model that was trained, integer for
    integer. Zeros are chosen and kept by `eightbit.fit` alone: a Keras model that shall be sparse is trained as a torch
    module. BatchNorm is folded at the start. What it did for training the module does itself: in training mode the
    sums of convolutions are normalized over the batch, and what that amounts to is folded into weights, scales and
    biases whenever the model is evaluated or converted (`train.normal`).

    With two bits begin with `Weights(bits=2, range=MSE())`. The default's scale reaches to the largest weight, and so
    rounds three quarters of the weights to zero, where training leaves most of them. A ResNet-8 has 67 % right with it
    before training, 63 % with `MSE`, and 88.8 and 89.7 % after an epoch of 20,000 pictures.

    Raises as `quantize`; QuantizationError for a model without layers between calibrated codes, MissingExtra without
    PyTorch or TensorFlow.
    """
    chosen = argument("framework", framework, Literal["torch", "keras"] | None)
    chosen = chosen or ("keras" if is_keras(model) else "torch")
    q = (
        model
        if isinstance(model, QuantizedModel)
        else quantize(model, calibration, recipe, progress=progress)
    )
    try:
        if chosen == "keras":
            from eightbit.train.keras_module import KerasTrainable

            return KerasTrainable(q)
        from eightbit.train.torch_module import Trainable
    except ImportError as cause:
        extra = "tensorflow" if chosen == "keras" else "torch"
        raise MissingExtra(extra, extra) from cause
    return Trainable(q)
