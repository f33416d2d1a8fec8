"""Quantizers side by side: ours by recipe, ONNX Runtime's and NNCF's with their defaults.

A quantizer takes the float network's file and the calibration samples (1, 3, H, W), and gives back the int8 network,
ready to run in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import eightbit as eb
from eightbit.data.feeds import Feeds
from eightbit.graph.run import session_options

Images = NDArray[np.float32]
Network = Callable[[Images], Images]
Quantizer = Callable[[Path, "Samples"], Network]


class Samples:
    """The first samples of an .npy file: read from the disk at each turn, so that they weigh on no peak of memory."""

    def __init__(self, file: Path, count: int) -> None:
        self._file, self._count = file, count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Images]:
        for i in range(self._count):
            yield np.array(np.load(self._file, mmap_mode="r")[i : i + 1])


def by_recipe(recipe: eb.Recipe) -> Quantizer:
    """Our own quantizer."""

    def quantize(model: Path, calibration: Samples) -> Network:
        q = eb.quantize(eb.load(model), calibration, recipe)
        return lambda x: np.asarray(q(x), np.float32)

    return quantize


def by_onnx_runtime(method: str, *, per_channel: bool = True) -> Quantizer:
    """ONNX Runtime's quantize_static, see `onnx_runtime_model`."""

    def quantize(model: Path, calibration: Samples) -> Network:
        feeds = ({_input(model): x} for x in calibration)
        made = onnx_runtime_model(model, feeds, model.parent, method=method, per_channel=per_channel)
        return in_onnx_runtime(made)

    return quantize


def onnx_runtime_model(
    model: Path, calibration: Iterable[Feeds], folder: Path, *, method: str, per_channel: bool = True
) -> bytes:
    """What ONNX Runtime's quantize_static makes, as QDQ: uint8 activations, int8 weights, calibrated by `method`."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = iter(calibration)

        def get_next(self) -> Feeds | None:
            return next(self.rest, None)

    target = folder / "onnxruntime.onnx"
    quantize_static(
        model,
        target,
        Reader(),
        per_channel=per_channel,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod[method],
    )
    return target.read_bytes()


def by_nncf(model: Path, calibration: Samples) -> Network:
    """NNCF's post-training quantization of the ONNX graph, as `nncf.quantize` does it by default."""
    return in_onnx_runtime(nncf_model(model, ({_input(model): x} for x in calibration)))


def nncf_model(model: Path, calibration: Iterable[Feeds]) -> bytes:
    """What NNCF makes of an ONNX file with its defaults."""
    import nncf

    samples = list(calibration)
    quantized = nncf.quantize(onnx.load(model), nncf.Dataset(samples), subset_size=len(samples))
    return bytes(quantized.SerializeToString())


def _input(model: Path) -> str:
    return str(onnx.load(model, load_external_data=False).graph.input[0].name)


def in_onnx_runtime(model: bytes) -> Network:
    """A peer's network in the session that ours has: where kernels saturate, a default one costs NNCF 4 dB."""
    session = ort.InferenceSession(model, session_options(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda x: np.asarray(session.run(None, {name: x})[0])
