"""Eight-bit neural networks: load, quantize, run, compare, save.

Importing this package loads NumPy and nothing heavier; each name below brings its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eightbit.errors import (
        CalibrationError,
        EightbitError,
        EngineError,
        ExportError,
        LoadError,
        MissingExtra,
        QuantizationError,
        UnsupportedOp,
    )
    from eightbit.model import (
        Model,
        QuantizedModel,
        export,
        load,
        load_weights,
        open,
        quantize,
        save_weights,
    )
    from eightbit.pruning.importance import BatchNormScale, Magnitude, Reconstruction, Taylor
    from eightbit.pruning.prune import prune
    from eightbit.pruning.sparsity import Sparsity
    from eightbit.quant.choose.recipe import (
        FLOAT,
        Activations,
        Layer,
        PerChannel,
        PerGroup,
        PerTensor,
        PerToken,
        Recipe,
        Weights,
    )
    from eightbit.quant.encode.arrays import dequantize_weights, quantize_weights
    from eightbit.quant.methods.calibrators import MSE, Entropy, MinMax, MovingAverage, Percentile
    from eightbit.quant.methods.rounding import GPTQ, AdaRound, Nearest
    from eightbit.report.certificate import Certificate, certify
    from eightbit.report.comparison import Comparison, compare
    from eightbit.report.explanation import Explanation, explain
    from eightbit.report.inspection import inspect
    from eightbit.report.lint import Lint, lint
    from eightbit.train.fit import fit
    from eightbit.train.refine import refine
    from eightbit.train.refinement import Refinement
    from eightbit.train.trainable import trainable
    from eightbit.train.training import Training
    from eightbit.tuning.search import tune
    from eightbit.tuning.sensitivity import sensitivity
    from eightbit.tuning.target import Target, Tuned

__version__ = "0.1.0"

# The public names in the order of the road: load, choose, quantize, look, keep.
_HOME = {
    "load": "model",
    "Model": "model",
    "prune": "pruning.prune",
    "Magnitude": "pruning.importance",
    "Reconstruction": "pruning.importance",
    "BatchNormScale": "pruning.importance",
    "Taylor": "pruning.importance",
    "Sparsity": "pruning.sparsity",
    "Recipe": "quant.choose.recipe",
    "Weights": "quant.choose.recipe",
    "Activations": "quant.choose.recipe",
    "Layer": "quant.choose.recipe",
    "PerTensor": "quant.choose.recipe",
    "PerChannel": "quant.choose.recipe",
    "PerGroup": "quant.choose.recipe",
    "PerToken": "quant.choose.recipe",
    "FLOAT": "quant.choose.recipe",
    "MinMax": "quant.methods.calibrators",
    "MovingAverage": "quant.methods.calibrators",
    "Percentile": "quant.methods.calibrators",
    "MSE": "quant.methods.calibrators",
    "Entropy": "quant.methods.calibrators",
    "Nearest": "quant.methods.rounding",
    "GPTQ": "quant.methods.rounding",
    "AdaRound": "quant.methods.rounding",
    "quantize": "model",
    "QuantizedModel": "model",
    "refine": "train.refine",
    "Refinement": "train.refinement",
    "trainable": "train.trainable",
    "fit": "train.fit",
    "Training": "train.training",
    "compare": "report.comparison",
    "Comparison": "report.comparison",
    "explain": "report.explanation",
    "Explanation": "report.explanation",
    "inspect": "report.inspection",
    "certify": "report.certificate",
    "Certificate": "report.certificate",
    "lint": "report.lint",
    "Lint": "report.lint",
    "sensitivity": "tuning.sensitivity",
    "tune": "tuning.search",
    "Target": "tuning.target",
    "Tuned": "tuning.target",
    "open": "model",
    "export": "model",
    "save_weights": "model",
    "load_weights": "model",
    "quantize_weights": "quant.encode.arrays",
    "dequantize_weights": "quant.encode.arrays",
    "EightbitError": "errors",
    "LoadError": "errors",
    "CalibrationError": "errors",
    "UnsupportedOp": "errors",
    "QuantizationError": "errors",
    "EngineError": "errors",
    "ExportError": "errors",
    "MissingExtra": "errors",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'eightbit' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"eightbit.{_HOME[name]}"), name)
    except ModuleNotFoundError as cause:
        if cause.name != "torch":  # what `fit` is written in
            raise
        from eightbit.errors import MissingExtra

        raise MissingExtra("torch", "torch") from cause
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
