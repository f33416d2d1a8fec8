"""ResNet-50 for Fashion-MNIST at 32x32x3, in the layout of keras.applications, so that one file of weights fits both.

In: float32 (N, 3, 32, 32) for torch, (N, 32, 32, 3) for Keras. Out: logits (N, 10) for torch; Keras ends in a softmax
unless `classifier_activation=None`.
"""

from __future__ import annotations

from torch import nn

from eightbit.course.zoo.resnet50 import ResNet50

CLASSES = 10
KERAS_EPSILON = 1.001e-5  # of keras.applications.ResNet50's BatchNorms


def build() -> nn.Module:
    """A fresh network."""
    return ResNet50(CLASSES, v1=True, epsilon=KERAS_EPSILON)
