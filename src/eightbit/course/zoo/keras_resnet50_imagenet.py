"""keras.applications' ResNet-50 with its ImageNet weights, which Keras fetches on first use.

In: float32 (N, 224, 224, 3), as `preprocess.imagenet_caffe` makes it, channels last. Out: ImageNet logits (N, 1000).
"""

from __future__ import annotations

import keras

from eightbit.errors import LoadError
from eightbit.graph.source.quiet import silence

FILE = "resnet50_weights_tf_dim_ordering_tf_kernels.h5"


def load() -> keras.Model:
    """The network with its weights.

    Raises:
        LoadError: they are neither in the cache of Keras nor to be downloaded.
    """
    try:
        with silence():  # a progress bar
            return keras.applications.ResNet50(weights="imagenet", classifier_activation=None)
    except Exception as cause:  # Keras raises a plain Exception where a download fails
        raise LoadError(
            f"Keras could not fetch ResNet-50's ImageNet weights ({cause}); connect to the network, put {FILE} into "
            "~/.keras/models, or take resnet50_fashion, whose weights are in this repository"
        ) from cause
