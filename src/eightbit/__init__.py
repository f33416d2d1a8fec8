"""Eight-bit neural networks: load, quantize, run, compare, save.

Importing this package loads NumPy and nothing heavier; each name below brings its module on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eightbit.comparison import Comparison, compare
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
    from eightbit.explanation import Explanation, explain
    from eightbit.inspection import inspect
    from eightbit.model import Model, QuantizedModel, load, load_weights, open, quantize, save_weights
    from eightbit.quant.arrays import dequantize_weights, quantize_weights
    from eightbit.quant.calibrators import MSE, Entropy, MinMax, MovingAverage, Percentile
    from eightbit.quant.recipe import (
        FLOAT,
        Activations,
        Layer,
        PerChannel,
        PerGroup,
        PerTensor,
        Recipe,
        Weights,
    )
    from eightbit.quant.rounding import GPTQ, AdaRound, Nearest
    from eightbit.tuning.search import tune
    from eightbit.tuning.sensitivity import sensitivity
    from eightbit.tuning.target import Target, Tuned

__version__ = "0.1.0"

# The public names in the order of the road: load, choose, quantize, look, keep.
_HOME = {
    "load": "model",
    "Model": "model",
    "Recipe": "quant.recipe",
    "Weights": "quant.recipe",
    "Activations": "quant.recipe",
    "Layer": "quant.recipe",
    "PerTensor": "quant.recipe",
    "PerChannel": "quant.recipe",
    "PerGroup": "quant.recipe",
    "FLOAT": "quant.recipe",
    "MinMax": "quant.calibrators",
    "MovingAverage": "quant.calibrators",
    "Percentile": "quant.calibrators",
    "MSE": "quant.calibrators",
    "Entropy": "quant.calibrators",
    "Nearest": "quant.rounding",
    "GPTQ": "quant.rounding",
    "AdaRound": "quant.rounding",
    "quantize": "model",
    "QuantizedModel": "model",
    "compare": "comparison",
    "Comparison": "comparison",
    "explain": "explanation",
    "Explanation": "explanation",
    "inspect": "inspection",
    "sensitivity": "tuning.sensitivity",
    "tune": "tuning.search",
    "Target": "tuning.target",
    "Tuned": "tuning.target",
    "open": "model",
    "save_weights": "model",
    "load_weights": "model",
    "quantize_weights": "quant.arrays",
    "dequantize_weights": "quant.arrays",
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
    value = getattr(import_module(f"eightbit.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
