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
from eightbit.train.normal import MOMENTUM, folded, normal_layers


class KerasTrainable(keras.Model):
    """What `eightbit.trainable` returns for Keras. It takes and gives what the model's graph does: NHWC from Keras.

    The weights are what is learned on top of post-training quantization, zero at first, as in `Trainable`; scales that
    stay are not trainable. With `training=False` sums that float32 might round are taken in float64, so that every
    tensor is that of the engines. With `training=True` the sums of convolutions are normalized, until `freeze`.
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
                name=_scope(key),
            )
            for key, start in self.plan.start.items()
        }
        self.frozen = False
        self._normal = {
            name: self._still(f"sums:{name}", (4, channels))
            for name, channels in normal_layers(self.plan).items()
        }
        self._counted = self._still("counted", ())
        self.built = True

    def call(self, inputs: Any, training: bool | None = False) -> Any:
        """The model's outputs: one bare, more as a tuple. Raises EngineError for another number of inputs."""
        feeds = self._feeds(inputs)
        if training and not self.frozen and self._normal:
            made = self._normalized(feeds)
        else:
            made = self._forward(exact=not training).run(feeds)
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

    def freeze(self) -> None:
        """Stop normalizing: from now on training, too, runs the integer program. Called first, it never begins."""
        settled = self._settled()
        for key in self.plan.learned:
            self.learned[key].assign(settled[key])
        self.frozen = True
        self.train_function = None  # the compiled step still normalizes

    def _numbers(self) -> dict[str, tf.Tensor]:
        return {key: tf.convert_to_tensor(weight.value) for key, weight in self.learned.items()}

    def _settled(self) -> dict[str, tf.Tensor]:
        """The numbers that the integers are made of: what was normalized is folded."""
        numbers = self._numbers()
        if self.frozen or not self._normal:
            return numbers
        statistics = {name: tf.convert_to_tensor(rows.value) for name, rows in self._normal.items()}

        def settled() -> dict[str, tf.Tensor]:
            return folded(self.plan, KerasOps(), numbers, statistics)

        return tf.cond(self._counted.value > 0, settled, lambda: numbers)

    def _normalized(self, feeds: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """A run in training; the first batch says what is normal."""

        def look() -> tf.Tensor:
            forward = Forward(self.plan, KerasOps(), self._numbers(), normal=dict.fromkeys(self._normal))
            forward.run(feeds)
            for name, moments in forward.moments.items():
                self._normal[name].assign(tf.stack([*moments, *moments]))
            self._counted.assign(1.0)
            return tf.constant(True)

        tf.cond(self._counted.value > 0, lambda: tf.constant(True), look)
        normal = {name: tf.convert_to_tensor(rows.value)[2:] for name, rows in self._normal.items()}
        forward = Forward(self.plan, KerasOps(), self._numbers(), normal=normal)
        made = forward.run(feeds)
        for name, moments in forward.moments.items():
            before = tf.convert_to_tensor(self._normal[name].value)
            now = before[:2] + MOMENTUM * (tf.stack(moments) - before[:2])
            self._normal[name].assign(tf.concat([now, before[2:]], 0))
        return made

    def _still(self, name: str, shape: tuple[int, ...]) -> Any:
        return self.add_weight(shape=shape, initializer="zeros", trainable=False, name=_scope(name))

    def _forward(self, *, exact: bool) -> Forward:
        return Forward(self.plan, KerasOps(), self._settled(), exact=exact)

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


def _scope(key: str) -> str:
    """A key as optimizers can make it the name of a scope."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", key)
