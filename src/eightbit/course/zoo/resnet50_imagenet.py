"""ResNet-50 with the ImageNet weights of keras.applications, in its layout.

In: float32 (N, 3, 224, 224), as `preprocess.imagenet_caffe` makes it. Out: ImageNet logits (N, 1000).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from eightbit.course.zoo.checkpoint import fill
from eightbit.course.zoo.resnet50 import ResNet50
from eightbit.course.zoo.resnet50_fashion import KERAS_EPSILON
from eightbit.errors import MissingExtra


def build() -> nn.Module:
    """A fresh network."""
    return ResNet50(1000, v1=True, epsilon=KERAS_EPSILON)


def load() -> nn.Module:
    """The network with its weights, which Keras fetches on first use.

    Raises:
        MissingExtra: keras is not installed.
        LoadError: the weights are neither in the cache of Keras nor to be downloaded.
    """
    try:
        import keras  # noqa: F401
    except ImportError:
        raise MissingExtra("keras", "tensorflow") from None
    from eightbit.course.zoo import keras_resnet50, keras_resnet50_imagenet

    found = keras_resnet50.tensors_of(keras_resnet50_imagenet.load())
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in found.items()}
    model = build()
    fill(model, tensors, keras_resnet50_imagenet.FILE)
    return model
