"""The public face: its names, and what importing it costs."""

import json
import pkgutil
import subprocess
import sys

import pytest

import eightbit

# The road's order. A name is added here on purpose, with its line in CHANGELOG.md.
PUBLIC = [
    "load",
    "Model",
    "prune",
    "Magnitude",
    "Reconstruction",
    "BatchNormScale",
    "Taylor",
    "Sparsity",
    "Recipe",
    "Weights",
    "Activations",
    "Layer",
    "PerTensor",
    "PerChannel",
    "PerGroup",
    "PerToken",
    "FLOAT",
    "MinMax",
    "MovingAverage",
    "Percentile",
    "MSE",
    "Entropy",
    "Nearest",
    "GPTQ",
    "AdaRound",
    "quantize",
    "QuantizedModel",
    "refine",
    "Refinement",
    "trainable",
    "fit",
    "Training",
    "compare",
    "Comparison",
    "explain",
    "Explanation",
    "inspect",
    "certify",
    "Certificate",
    "lint",
    "Lint",
    "sensitivity",
    "tune",
    "Target",
    "Tuned",
    "open",
    "export",
    "save_weights",
    "load_weights",
    "quantize_weights",
    "dequantize_weights",
    "EightbitError",
    "LoadError",
    "CalibrationError",
    "UnsupportedOp",
    "QuantizationError",
    "EngineError",
    "ExportError",
    "MissingExtra",
]

HEAVY = [
    "click",
    "keras",
    "matplotlib",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "rich",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorboard",
    "tensorflow",
    "torch",
]

# The whole import, NumPy included, in a new interpreter.
IMPORT = """
import json, sys
import eightbit
print(json.dumps(sorted(sys.modules)))
"""


def modules_of_an_import() -> list[str]:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_public_names_are_pinned():
    assert eightbit.__all__ == PUBLIC


def test_every_public_name_is_there_and_documented():
    for name in PUBLIC:
        value = getattr(eightbit, name)
        if callable(value):
            assert value.__doc__, f"eightbit.{name} has no docstring"
    assert set(PUBLIC) <= set(dir(eightbit))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="quantise"):
        eightbit.quantise  # noqa: B018


def test_import_brings_numpy_and_nothing_heavy():
    """So it is quick, on any machine."""
    modules = modules_of_an_import()
    assert "eightbit" in modules
    assert [name for name in HEAVY if name in modules] == []
    own = {name for name in modules if name.startswith("eightbit.")}
    assert own <= {"eightbit.errors"}


def test_no_module_shadows_a_public_name():
    """Importing `eightbit.x` sets the attribute `x` of the package, which would hide a function of that name."""
    modules = {m.name for m in pkgutil.iter_modules(eightbit.__path__)}
    assert modules & set(PUBLIC) == set()
