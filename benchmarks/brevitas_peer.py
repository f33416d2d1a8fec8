"""Brevitas' quantization-aware training of the course's networks, as its own examples build it; a peer of `training`.

In: a float network of the zoo in PyTorch, bits. Out: the same network of Brevitas' layers, BatchNorm not folded, with
weights of one learned scale a channel that begins at the least squared error, and activations of one learned scale.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from torch import nn


def installed() -> bool:
    """Whether Brevitas is there; it is no extra, for it asks for an older setuptools than the rest."""
    return find_spec("brevitas") is not None


def with_fake_quantization(network: nn.Module, bits: tuple[int, int]) -> nn.Module:
    """`network`, changed in place: its layers and ReLUs become Brevitas', with the weights that they have."""
    import brevitas.nn as qnn
    from brevitas.quant import Int8ActPerTensorFloat, Int8WeightPerChannelFloatMSE, Uint8ActPerTensorFloat

    weights = {"weight_quant": Int8WeightPerChannelFloatMSE, "weight_bit_width": bits[0]}
    for name, part in list(network.named_children()):
        made: Any
        inputs = {"input_quant": Int8ActPerTensorFloat, "input_bit_width": bits[1]}
        if isinstance(part, nn.Conv2d):
            made = qnn.QuantConv2d(
                part.in_channels,
                part.out_channels,
                part.kernel_size,
                part.stride,
                part.padding,
                part.dilation,
                part.groups,
                bias=part.bias is not None,
                **weights,
                **(inputs if part.in_channels == 1 else {}),  # other inputs come from a ReLU
            )
        elif isinstance(part, nn.Linear):
            made = qnn.QuantLinear(
                part.in_features, part.out_features, bias=part.bias is not None, **weights, **inputs
            )
        elif isinstance(part, nn.ReLU):
            made = qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, bit_width=bits[1])
        else:
            with_fake_quantization(part, bits)
            continue
        made.load_state_dict(part.state_dict(), strict=False)
        setattr(network, name, made)
    return network
