"""Peers at their strongest, each in a Python of its own: what they ask for cannot be installed together.

    PEER/bin/python -P -m benchmarks.strongest_peers PEER FOLDER BITS     # prints what it took as JSON

FOLDER holds model.onnx (float32, input (N, C, H, W)), module.pt (the same network, pickled by torch), calibration.npy
and test.npy; BITS are those of the weights, activations have eight. What comes out is int8.onnx, as QDQ, or, where the
peer only simulates, its answers to the test samples in found.npy. In a peer's Python nothing of `eightbit` runs but
the classes of module.pt.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.usage import peak_bytes, processor_seconds

BATCH = 8
ROUNDS, EPOCHS = 2000, 20
"""Steps of AdaRound a layer, and turns of MCT's training through the samples."""


def eightbit(folder: Path, bits: int) -> None:
    """Our default recipe, with weights of `bits` bits."""
    import eightbit as eb

    model = eb.load(folder / "model.onnx")
    q = eb.quantize(model, np.load(folder / "calibration.npy"), eb.Recipe(eb.Weights(bits=bits)))
    q.save(folder / "int8.onnx")


def nncf(folder: Path, bits: int) -> None:
    """NNCF with its slow bias correction: each layer's bias after those before it, on all samples.

    In OpenVINO, which runs the network too: on ONNX's graphs this correction fails at the first branch (NNCF 3.4).
    """
    import nncf as peer  # type: ignore[import-not-found,unused-ignore]
    import openvino  # type: ignore[import-not-found,unused-ignore]

    if bits != 8:
        raise NotImplementedError("static weights of four bits")
    samples = feeds(folder)
    made = peer.quantize(
        openvino.convert_model(folder / "model.onnx"),
        peer.Dataset(samples),
        subset_size=len(samples),
        preset=peer.QuantizationPreset.MIXED,
        fast_bias_correction=False,
    )
    network = openvino.compile_model(made, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers(folder, lambda x: network(x)[0])


def aimet(folder: Path, bits: int) -> None:
    """AIMET with AdaRound, and nothing rounded between a Conv and its Clip.

    Its configuration says as much, but finds only the first of the Clips that share their bounds.
    """
    import aimet_onnx as peer  # type: ignore[import-not-found]
    import onnx
    from aimet_onnx.common.defs import QuantScheme  # type: ignore[import-not-found]

    model = onnx.load(folder / "model.onnx")
    config = Path(peer.__file__).parent / "common" / "quantsim_config" / "default_config_per_channel.json"
    sim = peer.QuantizationSimModel(
        model,
        param_type=peer.int8 if bits == 8 else peer.int4,
        activation_type=peer.int8,
        quant_scheme=QuantScheme.post_training_tf_enhanced,
        config_file=str(config),
    )
    read_by_clips = {name for node in model.graph.node if node.op_type == "Clip" for name in node.input}
    for name in read_by_clips & set(sim.qc_quantize_op_dict):
        sim.qc_quantize_op_dict[name].enabled = False
    samples = feeds(folder)
    peer.apply_adaround(sim, samples, ROUNDS)
    sim.compute_encodings(samples)
    onnx.save(sim.to_onnx_qdq(), folder / "int8.onnx")


def quark(folder: Path, bits: int) -> None:
    """Quark with equalization, bias correction and AdaQuant on uint8 activations and int8 weights per channel."""
    from quark.onnx import (  # type: ignore[import-not-found]
        AdaQuantConfig,
        BiasCorrectionConfig,
        CLEConfig,
        Int8Spec,
        ModelQuantizer,
        QConfig,
        QLayerConfig,
        UInt8Spec,
    )
    from quark.onnx.quantization.config.spec import (  # type: ignore[import-not-found]
        CalibMethod,
        QuantGranularity,
    )

    if bits != 8:
        raise NotImplementedError("static weights of four bits")
    samples = feeds(folder)
    config = QConfig(
        global_config=QLayerConfig(
            activation=UInt8Spec(calibration_method=CalibMethod.Percentile),
            weight=Int8Spec(
                quant_granularity=QuantGranularity.Channel, calibration_method=CalibMethod.MinMax
            ),
        ),
        algo_config=[
            CLEConfig(),
            BiasCorrectionConfig(),
            AdaQuantConfig(data_size=len(samples), batch_size=2, num_iterations=1000, early_stop=True),
        ],
        extra_options={"FoldRelu": True},
    )
    ModelQuantizer(config).quantize_model(
        str(folder / "model.onnx"), str(folder / "int8.onnx"), Reader(samples)
    )


def mct(folder: Path, bits: int) -> None:
    """Sony's MCT with its gradient-based rounding, on the capabilities of TFLite: ranges with a zero point.

    EfficientNet-Lite0 meets them with an error, and all three networks those of QNNPACK (MCT 2.6).
    """
    import model_compression_toolkit as peer  # type: ignore[import-not-found]
    import torch

    if bits != 8:
        raise NotImplementedError("its capabilities of TFLite have weights of eight bits")
    module = torch.load(folder / "module.pt", weights_only=False).eval()
    calibration = np.load(folder / "calibration.npy")

    def data() -> Any:
        for i in range(0, len(calibration), BATCH):
            yield [calibration[i : i + BATCH]]

    core = peer.core.CoreConfig(quantization_config=peer.core.QuantizationConfig())
    target = peer.get_target_platform_capabilities(tpc_version="1.0", device_type="tflite")
    made, _ = peer.gptq.pytorch_gradient_post_training_quantization(
        module,
        data,
        core_config=core,
        gptq_config=peer.gptq.get_pytorch_gptq_config(n_epochs=EPOCHS),
        target_platform_capabilities=target,
    )
    with torch.no_grad():
        answers(folder, lambda x: made(torch.from_numpy(x)).numpy())


METHODS = {
    "eightbit": "default",
    "nncf": "NNCF, slow bias correction",
    "aimet": "AIMET, AdaRound",
    "quark": "Quark, AdaQuant",
    "mct": "MCT, trained rounding",
}
PEERS: dict[str, Callable[[Path, int], None]] = {
    "eightbit": eightbit,
    "nncf": nncf,
    "aimet": aimet,
    "quark": quark,
    "mct": mct,
}


class Reader:
    """Samples as ONNX Runtime's calibration asks for them."""

    def __init__(self, samples: list[dict[str, Any]]) -> None:
        self._samples, self._rest = samples, iter(samples)

    def get_next(self) -> dict[str, Any] | None:
        """The next sample, or None."""
        return next(self._rest, None)

    def rewind(self) -> None:
        """Begin again."""
        self._rest = iter(self._samples)

    def reset_iter(self) -> None:
        """Begin again."""
        self.rewind()

    def __len__(self) -> int:
        return len(self._samples)


def feeds(folder: Path) -> list[dict[str, Any]]:
    """The calibration samples, one at a time, by the name of the input."""
    import onnx

    name = onnx.load(folder / "model.onnx", load_external_data=False).graph.input[0].name
    return [{name: x[None]} for x in np.load(folder / "calibration.npy")]


def answers(folder: Path, network: Callable[[Any], Any]) -> None:
    """Write what a network says to the test samples."""
    test = np.load(folder / "test.npy", mmap_mode="r")
    parts = [network(np.array(test[i : i + BATCH])) for i in range(0, len(test), BATCH)]
    np.save(folder / "found.npy", np.concatenate(parts))


def main(name: str, folder: Path, bits: int) -> None:
    """Quantize as the peer called `name` does, and tell what it took."""
    start = time.perf_counter()
    PEERS[name](folder, bits)
    seconds = time.perf_counter() - start
    took = {"seconds": seconds, "processor_seconds": processor_seconds(), "peak_bytes": peak_bytes()}
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
