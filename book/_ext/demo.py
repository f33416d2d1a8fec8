"""What the front page's demo shows, computed with `eightbit`: two networks, eight photographs, a layer's weights.

Out: a folder that the site serves as it is, with the networks as ONNX files, the photographs, the files of ONNX
Runtime Web if the npm registry (or the cache) has them, and `stored.js`, which holds the answers for a browser that
cannot run the networks itself.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from base64 import b64encode
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import eightbit as eb
from eightbit.arith.affine import IntType, fake_quantize, params_from_range, sqnr_db
from eightbit.course import zoo
from eightbit.course.fetch import Archive, locate
from eightbit.course.pictures import (
    center_crop,
    imagenet_classes,
    imagenet_crops,
    pictures,
)
from eightbit.course.zoo import preprocess
from eightbit.errors import LoadError
from eightbit.graph.processor import processor_name
from eightbit.graph.run import session
from eightbit.report.timing import interleaved

MODEL = "efficientnet_lite0"
LAYER = "blocks.4.depthwise.0.weight"
VERSION = "1.30.0"
RUNTIME = Archive(
    "onnxruntime-web",
    {
        f"onnxruntime-web-{VERSION}.tgz": "sha256:d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
    },
    "https://registry.npmjs.org/onnxruntime-web/-",
)
RUNTIME_FILES = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
PHOTOGRAPHS = {
    "coffee": ("a cup of coffee", "Rachel Michetti, CC0"),
    "chelsea": ("a cat", "Stéfan van der Walt, CC0"),
    "china": ("a pavilion in China", "Daniel Büchele, CC BY 2.0"),
    "rocket": ("a rocket on its pad", "SpaceX, public domain"),
    "grace_hopper": ("an officer in uniform", "US Navy, public domain"),
    "brick": ("a brick wall", "CC0 Textures, CC0"),
    "gravel": ("gravel", "CC0 Textures, CC0"),
    "retina": ("the back of an eye", "Mikael Häggström, CC0"),
}
"""Test photographs of `eightbit.course.pictures`, which calibration does not see: what each shows, and whose it is."""
BEST = 3
"""Classes shown of each answer."""


def build(folder: Path) -> dict[str, Any]:
    """Fill `folder`, and return what `stored.js` says."""
    folder.mkdir(parents=True)
    model = eb.load(zoo.load(MODEL), zoo.example(MODEL))
    q = eb.quantize(
        model, zoo.preprocess_for(MODEL, imagenet_crops(test=1).calibration)
    )
    files = {"float": folder / "float.onnx", "int8": folder / "int8.onnx"}
    model.save(files["float"])
    q.save(files["int8"])
    shown = [photograph(folder, name) for name in PHOTOGRAPHS]
    x = zoo.preprocess_for(MODEL, np.stack(shown))
    names = imagenet_classes()
    stored = {
        "runtime": runtime(folder),
        "runtimeBytes": sum(file.stat().st_size for file in folder.glob("ort*")),
        "classes": names,
        "mean": preprocess.LITE_MEAN,
        "std": preprocess.LITE_STD,
        "bytes": {kind: file.stat().st_size for kind, file in files.items()},
        "photographs": [
            {
                "name": name,
                "shows": shows,
                "credit": credit,
                "float": best(a),
                "int8": best(b),
            }
            for (name, (shows, credit)), a, b in zip(
                PHOTOGRAPHS.items(), model(x), q(x), strict=True
            )
        ],
        **times(files, x[:1]),
        "weights": weights(),
    }
    (folder / "stored.js").write_text(
        f"window.eightbitDemo = {json.dumps(stored)};\n"
    )
    return stored


def photograph(folder: Path, name: str) -> NDArray[np.uint8]:
    """Store a photograph's middle as a JPEG, and return its pixels (224, 224, 3) as readers of the file see them."""
    from PIL import Image

    file = folder / f"{name}.jpg"
    Image.fromarray(center_crop(pictures()[name])).save(
        file, quality=90, subsampling=0
    )
    with Image.open(file) as image:
        return np.asarray(image)


def best(logits: NDArray[np.float32]) -> list[list[float]]:
    """The likeliest classes with their probabilities."""
    likely = np.exp(logits - logits.max())
    likely /= likely.sum()
    return [
        [int(i), round(float(likely[i]), 4)] for i in np.argsort(-logits)[:BEST]
    ]


def times(files: dict[str, Path], x: NDArray[np.float32]) -> dict[str, Any]:
    """Milliseconds of a picture in ONNX Runtime on one thread of this machine, and its processor."""
    sessions = [session(file.read_bytes(), threads=1) for file in files.values()]
    calls = [lambda s=s: s.run(None, {s.get_inputs()[0].name: x}) for s in sessions]
    seconds, _ = interleaved(calls, rounds=20)
    return {
        "milliseconds": dict(
            zip(files, (round(1e3 * s, 1) for s in seconds), strict=True)
        ),
        "processor": processor_name(),
    }


def weights() -> dict[str, Any]:
    """A layer's weights as base64 float32, and their SQNR at some settings, to check the page's own sums by."""
    w = zoo.load(MODEL).state_dict()[LAYER].numpy().ravel()
    limit = float(np.abs(w).max())
    checks = []
    for bits, share in ((8, 100), (8, 40), (4, 100), (4, 45), (2, 30)):
        end = limit * share / 100
        params = params_from_range(
            -end, end, IntType(bits, signed=True), symmetric=True
        )
        checks.append(
            {
                "bits": bits,
                "share": share,
                "sqnr": sqnr_db(w, fake_quantize(w, params)),
            }
        )
    return {
        "layer": LAYER,
        "data": b64encode(w.tobytes()).decode(),
        "checks": checks,
    }


def runtime(folder: Path) -> str | None:
    """Unpack ONNX Runtime Web into `folder`; its version, or None after a line on the terminal."""
    try:
        archive = locate(RUNTIME) / next(iter(RUNTIME.digests))
    except LoadError as error:
        print(
            f"The front page will show stored answers and run no network: {error}"
        )
        return None
    with tarfile.open(archive) as tar:
        for name in RUNTIME_FILES:
            source = tar.extractfile(f"package/dist/{name}")
            assert source is not None, f"{archive} holds no {name}"
            with source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)
    return VERSION
