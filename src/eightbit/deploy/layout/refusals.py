"""What no writer of a network for one sample a call, in codes alone, can say, with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

from eightbit.integer import program as p

IN_FLOAT = "it computes in float: leave none of its inputs and outputs in float, or keep that part outside the network"
NO_CODES: Mapping[type[p.Op], str] = {
    p.FloatIsland: IN_FLOAT,
    p.GemmToFloat: "its accumulators leave as float: quantize its output, too",
    p.MatMulToFloat: "its accumulators leave as float: quantize its output, too",
    p.DynamicQuantize: "it measures its input's range as it runs: quantize with calibration data",
    p.DynamicGemm: "its input's scale is known only as it runs: quantize with calibration data",
    p.Embedding: "it gives out float: keep embeddings outside the network",
    p.ReshapeTo: "its shape is computed as it runs: export the model with fixed shapes",
}
"""By operation."""
