"""What a user asks for: how to quantize weights and activations, and where to do otherwise.

Everything here is a frozen value; a recipe is data and holds no state. `Recipe()` is the default that
`eightbit.quantize` uses. Chapters 4, 5 and 7 explain the choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from fnmatch import fnmatchcase

from eightbit.arith.affine import IntType
from eightbit.errors import QuantizationError
from eightbit.quant.methods.calibrators import MSE, Calibrator, MinMax
from eightbit.quant.methods.rounding import GPTQ, Nearest, Rounding


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole weight tensor."""


@dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel: each row of a Gemm, each filter of a convolution."""


@dataclass(frozen=True)
class PerGroup:
    """One scale for each `size` neighbouring inputs of an output channel; the last group may be shorter.

    A convolution's inputs are counted channel by channel, tap by tap. The products of a group must be scaled before
    they meet those of the next, so there is no int32 accumulator for the channel: groups are for weight-only recipes.
    """

    size: int = 32

    def __post_init__(self) -> None:
        if self.size < 2:
            raise QuantizationError(f"PerGroup(size={self.size}): 2 weights a group at least")


Granularity = PerTensor | PerChannel | PerGroup


class Keep(Enum):
    """A node's own numbers, untouched."""

    FLOAT = "float"


SEARCHED = MSE()
FLOAT = Keep.FLOAT
"""As an override: leave the node in float32. As a recipe's activations: quantize the weights only."""


@dataclass(frozen=True)
class Weights:
    """Weights: symmetric signed codes in [-(2**(bits-1) - 1), 2**(bits-1) - 1], zero point 0, of 2 to 16 bits.

    `rounding` None is GPTQ where there are calibration data, and to the nearest where there are none.
    Seven bits keep the products of pairs inside int16 on x86 processors without VNNI. More than 8 are int16 codes: the
    NumPy engine sums their products in int64, and ONNX Runtime, which has no kernels for them, computes in float32.
    """

    bits: int = 8
    granularity: Granularity = PerChannel()
    range: Calibrator = MinMax()
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16:
            raise QuantizationError(f"Weights(bits={self.bits}): 2 to 16 bits are supported")

    @property
    def itype(self) -> IntType:
        """The integers that the codes are."""
        return IntType(self.bits, signed=True, narrow=True)


@dataclass(frozen=True)
class Activations:
    """Activations: one scale and zero point a tensor, unsigned codes of 8 or 16 bits at the ONNX border.

    Codes of 16 bits cost time: ONNX Runtime has no integer kernels for them and computes the layers that read or write
    them in float32, to within rounding of the NumPy engine, which sums in int64.

    With `dynamic` the scale is not calibrated: each Gemm and MatMul with a constant matrix finds the range of its
    input anew in every run, and hands float32 on. Everything else stays in float.
    """

    bits: int = 8
    range: Calibrator = SEARCHED
    symmetric: bool = False
    dynamic: bool = False

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise QuantizationError(f"Activations(bits={self.bits}): 8 and 16 bits are supported")
        if self.dynamic and self.bits != 8:
            raise QuantizationError(
                f"{self}: ONNX quantizes dynamically to 8 bits; choose bits=8, or dynamic=False"
            )
        if self.dynamic and (self.symmetric or self.range != Activations.range):
            raise QuantizationError(
                f"{self}: the range is that of the values themselves, asymmetric, in every run; leave `range` and "
                "`symmetric` as they are, or choose dynamic=False"
            )

    @property
    def itype(self) -> IntType:
        """The integers that the codes are."""
        return IntType(self.bits, signed=False)


@dataclass(frozen=True)
class Layer:
    """What single nodes get in place of the recipe's choice, as a value of `Recipe.overrides`; None leaves it.

    `weights` are those of the node, if it has any; FLOAT leaves the node in float32. `activations` are those that it
    writes; for an input of the graph, the pattern is the input's name.
    """

    weights: Weights | Keep | None = None
    activations: Activations | None = None

    def __post_init__(self) -> None:
        if self.weights is None and self.activations is None:
            raise QuantizationError("Layer() changes nothing; give weights or activations")
        if self.activations is not None and self.activations.dynamic:
            raise QuantizationError(
                "Layer(activations=...): dynamic is for a whole recipe, not for single layers"
            )


SMOOTHING = {"static": 0.85, "dynamic": 0.65}
"""Alpha on MiniLM over docstrings: mean cosine to float 0.997 static, 0.996 dynamic; at 0.5 static it is 0.990, and at
0.85 dynamic 0.992, which is worse than no smoothing at all."""

FEW_BITS = 4
"""Where layers are rounded one after another: it takes a run of the data for each."""


@dataclass(frozen=True)
class Recipe:
    """How to quantize a graph.

    What is left out is what measured best over the models of the course, or with `None` the best that can be done with
    the data given; `Recipe.plain()` is the opposite. On EfficientNet-Lite0, 72 crops of photographs, tested on 200 of
    others: plain min-max keeps 15.2 dB of the logits and 88.5 % of the first classes, GPTQ with MSE ranges 22.7 dB and
    91.5 %, with bias correction 23.4 and 92.5, with equalized channels (the default) 23.8 and 95.5; on 300 further
    crops, not used to choose, 23.0 and 93.7 without equalization, 23.6 and 95.7 with it. Ranges by percentile 99.99 in
    place of MSE: 23.7 dB and 93.5 %. `bias_correction` gives back to biases what weight rounding took from the mean
    outputs. `equalize` evens out the channels of activations first (`graph.rescale.equalize`); it has no say where
    activations are not calibrated. `overrides` maps patterns of node names (shell style, `"classifier*"`) to FLOAT or
    a `Layer`; the last pattern that matches a name decides.

    `smooth` lets SmoothQuant act behind every LayerNorm and Gelu, with the alpha that measured best (SMOOTHING), or
    with a number as alpha: 0 leaves the spread of channels in the activations, 1 moves all of it into the weights.
    It changes nothing in networks that have none; False leaves the graph as it is.

    With `activations=FLOAT` only the weights become codes: the file shrinks, and the arithmetic stays in float32.
    """

    weights: Weights = Weights()
    activations: Activations | Keep = Activations()
    bias_correction: bool | None = None
    equalize: bool = True
    smooth: float | bool = True
    overrides: Mapping[str, Keep | Layer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.smooth <= 1:
            raise QuantizationError(
                f"Recipe(smooth={self.smooth}): smooth must lie in [0, 1], or be True or False"
            )
        grouped = [w.granularity for w in self._all_weights() if isinstance(w.granularity, PerGroup)]
        if grouped and not self.weights_only:
            raise QuantizationError(
                f"{grouped[0]} has no integer kernel: an int32 accumulator holds one scale a channel; "
                "use PerChannel(), or activations=FLOAT for weights only"
            )
        fine = [w for w in self._all_weights() if w.bits > 8]
        if fine and self.dynamic:
            raise QuantizationError(
                f"Weights(bits={fine[0].bits}): a dynamic layer is MatMulInteger, whose weights have 8 bits; choose at "
                "most 8, or static or float activations"
            )
        for pattern, choice in self.overrides.items():
            if isinstance(choice, Layer) and choice.activations and (self.weights_only or self.dynamic):
                raise QuantizationError(
                    f"override {pattern!r} chooses activations, which this recipe does not calibrate; "
                    "give Layer(weights=...) alone"
                )

    @property
    def weights_only(self) -> bool:
        """Whether activations stay in float."""
        return self.activations is FLOAT

    @property
    def dynamic(self) -> bool:
        """Whether activations take their scale from each run, not from calibration."""
        return isinstance(self.activations, Activations) and self.activations.dynamic

    @property
    def calibrates(self) -> bool:
        """Whether activations have a scale each that calibration finds."""
        return not self.weights_only and not self.dynamic

    @property
    def codes(self) -> Activations:
        """The choice for activations. Raises QuantizationError if they stay in float."""
        if isinstance(self.activations, Keep):
            raise QuantizationError("this recipe keeps activations in float")
        return self.activations

    @property
    def alpha(self) -> float | None:
        """The alpha of SmoothQuant; None if the graph is left as it is."""
        if self.weights_only:
            return None  # there is nothing to move out of activations that stay in float
        if self.smooth is True:
            return SMOOTHING["dynamic" if self.dynamic else "static"]
        return None if self.smooth is False else self.smooth

    @classmethod
    def plain(cls) -> Recipe:
        """Min-max ranges, weights to the nearest code, the graph as it is: what most tools do by default."""
        return cls(
            weights=Weights(rounding=Nearest()),
            activations=Activations(range=MinMax()),
            bias_correction=False,
            equalize=False,
            smooth=False,
        )

    def settled(self, has_data: bool) -> Recipe:
        """The same recipe with every None replaced by what it stands for."""

        def settle(weights: Weights) -> Weights:
            return replace(weights, rounding=weights.rounding or (GPTQ() if has_data else Nearest()))

        correct = has_data if self.bias_correction is None else self.bias_correction
        overrides = {
            pattern: replace(choice, weights=settle(choice.weights))
            if isinstance(choice, Layer) and isinstance(choice.weights, Weights)
            else choice
            for pattern, choice in self.overrides.items()
        }
        return replace(self, weights=settle(self.weights), bias_correction=correct, overrides=overrides)

    @property
    def equalizes(self) -> bool:
        """Whether channels are equalized: calibrated codes gain by it, other activations do not."""
        return self.equalize and self.calibrates

    @property
    def sequential(self) -> bool:
        """Whether each layer makes up for those before it (`sequential`): weights alone, in FEW_BITS or fewer."""
        rounding = self.weights.rounding
        looks = bool(self.bias_correction) and rounding is not None and rounding.needs_data
        return looks and self.weights_only and self.weights.bits <= FEW_BITS

    @property
    def needs_moments(self) -> bool:
        """Whether the weights' codes depend on the calibration data."""
        roundings = (weights.rounding for weights in self._all_weights())
        return bool(self.bias_correction) or any(r is not None and r.needs_data for r in roundings)

    def keeps_float(self, node_name: str) -> bool:
        """Whether an override leaves this node in float."""
        choice = self._override(node_name)
        return choice is FLOAT or (isinstance(choice, Layer) and choice.weights is FLOAT)

    def for_layer(self, node_name: str) -> Recipe:
        """The recipe with the weights that its overrides choose for this node."""
        choice = self._override(node_name)
        if not isinstance(choice, Layer) or not isinstance(choice.weights, Weights):
            return self
        return replace(self, weights=choice.weights)

    def codes_of(self, node_name: str) -> Activations:
        """The choice for the tensors that this node writes, or for the graph's input of this name."""
        choice = self._override(node_name)
        return choice.activations if isinstance(choice, Layer) and choice.activations else self.codes

    def _override(self, node_name: str) -> Keep | Layer | None:
        matching = [choice for pattern, choice in self.overrides.items() if fnmatchcase(node_name, pattern)]
        return matching[-1] if matching else None

    def _all_weights(self) -> Iterator[Weights]:
        yield self.weights
        for choice in self.overrides.values():
            if isinstance(choice, Layer) and isinstance(choice.weights, Weights):
                yield choice.weights
