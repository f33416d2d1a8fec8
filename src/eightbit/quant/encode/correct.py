"""Give back to the bias what quantized weights take from a layer's mean output.

Quantization changes the weights by E, and so the mean of the layer's output by E · mean(x). The mean of the input,
measured on data, is in the layer's moments; subtracting the shift from the float bias costs nothing at run time.
Source: Nagel et al. 2019, arXiv 1906.04721, section 4.2 (empirical form).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eightbit.quant.observe.moments import Moments


def corrected_bias(
    rows: NDArray[np.float32],
    dequantized: NDArray[np.float32],
    bias: NDArray[np.float32] | None,
    moments: Moments,
    limits: NDArray[np.float64] | float = np.inf,
) -> NDArray[np.float32]:
    """The bias (C,) float32 that keeps the mean output: bias - (dequantized - rows) · mean(x).

    `rows` and `dequantized` are (G, channels of the group, K) as from `layout.Layout.rows`; a missing bias counts as 0.
    A channel whose bias would leave `limits` (C,), what its code can hold, keeps its own: its mean input lies far
    outside the range of the input's codes, and is not what the layer will see.
    """
    shift = np.einsum("gck,gk->gc", dequantized.astype(np.float64) - rows, moments.mean).reshape(-1)
    own = np.zeros_like(shift) if bias is None else bias.astype(np.float64)
    return np.where(np.abs(own - shift) <= limits, own - shift, own).astype(np.float32)
