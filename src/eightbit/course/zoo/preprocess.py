"""From uint8 pictures to a model's input, in NumPy alone: one function per family of models, used everywhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eightbit.errors import LoadError

# Mean and standard deviation of the 60,000 training images, scaled to 0..1.
FASHION_MEAN, FASHION_STD = 0.2860, 0.3530
# EfficientNet-Lite was trained on (x - 127) / 128: 0..255 to about -1..1, by one zero point and one scale.
LITE_MEAN, LITE_STD = 127.0, 128.0
CAFFE_MEAN = 103.939, 116.779, 123.68  # of ImageNet: blue, green, red, for pictures of 0..255
# The usual statistics of ImageNet, per channel, for pictures scaled to 0..1.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def fashion_mnist(images: ArrayLike) -> NDArray[np.float32]:
    """uint8 (N, 28, 28) -> float32 (N, 1, 28, 28): (x / 255 - mean) / std."""
    x = _bytes(images, rank=3)
    return ((x.astype(np.float32) / np.float32(255) - np.float32(FASHION_MEAN)) / np.float32(FASHION_STD))[
        :, None
    ]


def fashion_mnist_rgb(images: ArrayLike) -> NDArray[np.float32]:
    """uint8 (N, 28, 28) -> float32 (N, 3, 32, 32): normalised, two zero pixels of border, grey repeated thrice.

    Colour pictures (N, 32, 32, 3), such as CIFAR-10's, are normalised alike.
    """
    if np.ndim(images) == 4:
        colours = _bytes(images, rank=4)
        if colours.shape[1:] != (32, 32, 3):
            raise LoadError(
                f"colour pictures have shape {colours.shape}, expected (N, 32, 32, 3); resize them"
            )
    else:
        framed = np.pad(_bytes(images, rank=3), ((0, 0), (2, 2), (2, 2)))
        colours = np.repeat(framed[..., None], 3, axis=3)
    x = (colours.astype(np.float32) / np.float32(255) - np.float32(FASHION_MEAN)) / np.float32(FASHION_STD)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def efficientnet_lite(images: ArrayLike) -> NDArray[np.float32]:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W): (x - 127) / 128, exact in float32."""
    x = _bytes(images, rank=4).transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((x - np.float32(LITE_MEAN)) / np.float32(LITE_STD))


def imagenet(images: ArrayLike) -> NDArray[np.float32]:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W): (x / 255 - mean) / std for each channel."""
    x = _bytes(images, rank=4).astype(np.float32) / np.float32(255)
    normal = (x - np.asarray(IMAGENET_MEAN, np.float32)) / np.asarray(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(normal.transpose(0, 3, 1, 2), np.float32)


def imagenet_caffe(images: ArrayLike) -> NDArray[np.float32]:
    """uint8 RGB (N, H, W, 3) -> float32 (N, 3, H, W): blue first, less its mean, not scaled.

    As `keras.applications.resnet.preprocess_input` does, which is how the weights were trained.
    """
    x = _bytes(images, rank=4)[..., ::-1].astype(np.float32) - np.asarray(CAFFE_MEAN, np.float32)
    return np.ascontiguousarray(x.transpose(0, 3, 1, 2))


def _bytes(images: ArrayLike, *, rank: int) -> NDArray[np.uint8]:
    x = np.asarray(images)
    if x.dtype != np.uint8 or x.ndim != rank:
        raise LoadError(
            f"images are {x.dtype} with shape {x.shape}, expected uint8 of rank {rank} (batch first); "
            "give a batch of raw pictures, 0 to 255"
        )
    return x
