"""keras.applications' ResNet-50 with the weights of the torch twin (`resnet50_fashion`), from the same file.

In: float32 (N, 32, 32, 3). Out: logits (N, 10). Keras keeps kernels as (height, width, in, out) and matrices as
(in, out), torch as (out, in, height, width) and (out, in); its convolutions have biases, which are zero here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from eightbit.course.zoo.resnet50_layout import LAYOUT
from eightbit.errors import LoadError

SHAPE = (32, 32, 3)
CLASSES = 10
Tensors = dict[str, NDArray[np.float32]]


def build() -> keras.Model:
    """A fresh network."""
    return keras.applications.ResNet50(
        weights=None, input_shape=SHAPE, classes=CLASSES, classifier_activation=None
    )


def load(path: Path) -> keras.Model:
    """The network with the weights of the safetensors file `path`, which the torch twin wrote.

    Raises:
        LoadError: the file cannot be read, or its tensors are not the model's.
    """
    try:
        tensors: Tensors = {name: array.astype(np.float32) for name, array in load_file(path).items()}
    except (OSError, SafetensorError) as error:
        raise LoadError(f"checkpoint {path} cannot be read: {error}") from error
    model = build()
    for layer, scope in layers():
        target = model.get_layer(layer)
        try:
            target.set_weights(_weights(target, scope, tensors))
        except (KeyError, ValueError) as error:
            raise LoadError(f"{path}: layer {layer!r} does not fit the model: {error}") from error
    if tensors:
        raise LoadError(f"{path} does not fit the model: not in it are {sorted(tensors)[:5]}")
    return model


def tensors_of(model: keras.Model) -> Tensors:
    """The weights of a ResNet-50 of keras.applications as the torch twin names and shapes them.

    Convolutions have no biases there: that of Keras is taken off the mean of the BatchNorm behind it, with one result.
    """
    found: Tensors = {}
    bias: NDArray[np.float32] | None = None
    for name, scope in layers():
        layer = model.get_layer(name)
        arrays = layer.get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            kernel, bias = arrays
            found[f"{scope}.weight"] = kernel.transpose(3, 2, 0, 1)
        elif isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = arrays
            mean = mean if bias is None else mean - bias
            parts = zip(
                ("weight", "bias", "running_mean", "running_var"), (gamma, beta, mean, variance), strict=True
            )
            found |= {f"{scope}.{part}": array for part, array in parts}
        else:
            found |= {f"{scope}.weight": arrays[0].T, f"{scope}.bias": arrays[1]}
    return found


def layers() -> list[tuple[str, str]]:
    """The layers with weights: each name in Keras with its scope in torch."""
    found = [("conv1_conv", "stem.0"), ("conv1_bn", "stem.1")]
    block = 0
    for stage, (_, count, _) in enumerate(LAYOUT, start=2):
        for i in range(1, count + 1):
            name, scope = f"conv{stage}_block{i}", f"blocks.{block}"
            if i == 1:
                found += [(f"{name}_0_conv", f"{scope}.shortcut.0"), (f"{name}_0_bn", f"{scope}.shortcut.1")]
            for k in (1, 2, 3):
                at = 3 * (k - 1)
                found += [
                    (f"{name}_{k}_conv", f"{scope}.body.{at}"),
                    (f"{name}_{k}_bn", f"{scope}.body.{at + 1}"),
                ]
            block += 1
    return [*found, ("predictions", "classifier")]


def _weights(layer: Any, scope: str, tensors: Tensors) -> list[NDArray[np.float32]]:
    """The arrays that `layer.set_weights` wants, taken out of `tensors`."""
    if isinstance(layer, keras.layers.BatchNormalization):
        return [tensors.pop(f"{scope}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
    weight = tensors.pop(f"{scope}.weight")
    if isinstance(layer, keras.layers.Conv2D):
        return [weight.transpose(2, 3, 1, 0), np.zeros(len(weight), np.float32)]
    return [weight.T, tensors.pop(f"{scope}.bias")]
