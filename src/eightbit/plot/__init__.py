"""Pictures of quantization: each function draws on an Axes and returns it.

matplotlib is imported on the first call (extra `plot`). Colours are those of Okabe and Ito (2008), which readers
with any colour vision can tell apart; figures are opaque white, readable on light and dark pages alike.
"""

from eightbit.plot.engines import parity, parity_by_layer
from eightbit.plot.look import (
    BLACK,
    BLUE,
    FLOAT_COLOR,
    GREEN,
    INT8_COLOR,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    style,
)
from eightbit.plot.memory import arena
from eightbit.plot.networks import (
    layer_sqnr,
    layers_by_recipe,
    layers_by_sample,
    leads,
    ranges,
    saliency,
    sqnr_by_bits,
    tensor_histogram,
)
from eightbit.plot.numbers import (
    MOST_TICKS,
    codes,
    difference_histogram,
    grid_points,
    histogram_with_grid,
    quantization_error,
    weight_ranges,
)
from eightbit.plot.tuning import front, sensitivity

__all__ = [
    "BLACK",
    "BLUE",
    "FLOAT_COLOR",
    "GREEN",
    "INT8_COLOR",
    "MOST_TICKS",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILION",
    "YELLOW",
    "arena",
    "codes",
    "difference_histogram",
    "front",
    "grid_points",
    "histogram_with_grid",
    "layer_sqnr",
    "layers_by_recipe",
    "layers_by_sample",
    "leads",
    "parity",
    "parity_by_layer",
    "quantization_error",
    "ranges",
    "saliency",
    "sensitivity",
    "sqnr_by_bits",
    "style",
    "tensor_histogram",
    "weight_ranges",
]
