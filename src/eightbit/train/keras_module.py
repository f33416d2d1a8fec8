"""A quantized model as a `keras.Model` that learns: forward is the integer program, backward its gradients.

The same as `torch_module` on the TensorFlow backend, for `compile` and `fit` of Keras; `eightbit.quantize(model)` gives
the int8 model that was trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from eightbit.errors import EngineError
from eightbit.model import QuantizedModel
from eightbit.train.convert import converted, engine_codes, planned
from eightbit.train.forward import Forward
from eightbit.train.keras_ops import KerasOps


class KerasTrainable(keras.Model):
    """What `eightbit.trainable` returns for Keras. It takes and gives what the model's graph does: NHWC from Keras.

    The weights are what is learned on top of post-training quantization, zero at first, as in `Trainable`; scales that
    stay are not trainable. With `training=False` sums that float32 might round are taken in float64, so that every
    tensor is that of the engines.
    """

    def __init__(self, q: QuantizedModel) -> None:
        super().__init__()
        self.plan, self.report = planned(q)
        self.supports_jit = (
            False  # a compiler that fuses a product and a sum rounds once where the engines do twice
        )
        self.learned = {
            key: self.add_weight(
                shape=start.shape,
                initializer="zeros",
                trainable=key not in self.plan.fixed,
                name=re.sub(r"[^A-Za-z0-9_.-]", "_", key),  # what optimizers can make the name of a scope
            )
            for key, start in self.plan.start.items()
        }
        self.built = True

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """The model's outputs: one bare, more as a tuple. Raises EngineError for another number of inputs."""
        made = self._forward(exact=not training).run(self._feeds(inputs))
        outputs = tuple(made[name] for name in self.plan.program.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def codes(self, inputs: Any) -> dict[str, np.ndarray]:
        """Every tensor of codes on the way, as the engines have it: canonical integers by name."""
        made = self._forward(exact=True).run(self._feeds(inputs), keep=True)
        return engine_codes(self.plan.program, {name: value.numpy() for name, value in made.items()})

    def quantized(self) -> QuantizedModel:
        """The int8 model with the integers that the weights stand for now."""
        values = self._forward(exact=True).values()
        return converted(self.plan, self.report, {key: value.numpy() for key, value in values.items()})

    def _forward(self, *, exact: bool) -> Forward:
        numbers = {key: tf.convert_to_tensor(weight.value) for key, weight in self.learned.items()}
        return Forward(self.plan, KerasOps(), numbers, exact=exact)

    def _feeds(self, inputs: Any) -> dict[str, tf.Tensor]:
        names = self.plan.program.inputs
        if isinstance(inputs, Mapping):
            return {name: tf.convert_to_tensor(inputs[name]) for name in names}
        given = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
        if len(given) != len(names):
            raise EngineError(
                f"{len(given)} input(s) given, the model takes {len(names)}: {', '.join(names)}"
            )
        return {name: tf.convert_to_tensor(x) for name, x in zip(names, given, strict=True)}
