"""What a user asks for: how to quantize weights and activations, and where to do otherwise.

Everything here is a frozen value that checks itself when it is made; a recipe is data, holds no state, and can be
hashed and pickled. `Recipe()` is the default that `eightbit.quantize` uses. Chapters 4, 5 and 7 explain the choices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Annotated, Any

from eightbit.arith.affine import IntType
from eightbit.errors import CalibrationError, QuantizationError
from eightbit.graph.processor import Processor, adds_in_int16, this_processor
from eightbit.quant.choose.patterns import matches
from eightbit.quant.methods.calibrators import MSE, MinMax, Ranged, check_width
from eightbit.quant.methods.rounding import GPTQ, Nearest, Rounding
from eightbit.values.fields import AtLeast, Between, OneOf, argument, check
from eightbit.values.frozen_map import FrozenMap


@dataclass(frozen=True)
class PerTensor:
    """One scale for the whole tensor."""


@dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel: each row of a Gemm, each filter of a convolution."""


@dataclass(frozen=True)
class PerGroup:
    """One scale for each `size` neighbouring inputs of an output channel; the last group may be shorter.

    A convolution's inputs are counted channel by channel, tap by tap. The products of a group must be scaled before
    they meet those of the next, so there is no int32 accumulator for the channel: groups are for weight-only recipes.
    """

    size: Annotated[int, AtLeast(2)] = 32

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PerToken:
    """One scale for each row of a dynamic layer's input, that is for all numbers that lie along its last axis."""


Granularity = PerTensor | PerChannel | PerGroup


class Keep(Enum):
    """A node's own numbers, untouched."""

    FLOAT = "float"

    def __repr__(self) -> str:
        return self.name


SEARCHED = MSE()
FLOAT = Keep.FLOAT
"""As an override: leave the node in float32. As a recipe's activations: quantize the weights only."""


@dataclass(frozen=True)
class Weights:
    """Weights: symmetric signed codes in [-(2**(bits-1) - 1), 2**(bits-1) - 1], zero point 0, of 2 to 16 bits.

    `rounding` None is GPTQ where there are calibration data (in turn for few bits, see `Recipe`), and to the nearest
    where there are none. A layer of more
    than 5,120 inputs goes to the nearest whatever the choice, and the report's notes say so (`encode.layers.WIDE`).
    Seven bits keep the products of pairs inside int16 on x86 processors without VNNI. More than 8 are int16 codes: the
    NumPy engine sums their products in int64, and ONNX Runtime, which has no kernels for them, computes in float32.
    """

    bits: Annotated[int, Between(2, 16)] = 8
    granularity: Granularity = PerChannel()
    range: Ranged = MinMax()
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        check(self)
        check_width(self.range, self.itype)

    @property
    def itype(self) -> IntType:
        """The integers that the codes are."""
        return IntType(self.bits, signed=True, narrow=True)


@dataclass(frozen=True)
class Activations:
    """Activations: one scale and zero point a tensor, unsigned codes of 2 to 8 or of 16 bits at the ONNX border.

    Codes of fewer than 8 bits lie in bytes and are cut off at their largest value (`write.qdq`), so that every engine
    runs them; they save no time and no memory there, and are what narrower hardware would compute.

    Codes of 16 bits cost time: ONNX Runtime has no integer kernels for them and computes the layers that read or write
    them in float32, to within rounding of the NumPy engine, which sums in int64.

    With `dynamic` the scale is not calibrated: each Gemm and MatMul with a constant matrix finds the range of its
    input anew in every run, and hands float32 on. Everything else stays in float. Its range is that of the whole
    tensor, or with `granularity` PerToken() a row's own: the codes are then symmetric, large tokens take nothing from
    small ones, and an answer does not depend on what else is in the batch.
    """

    bits: Annotated[int, OneOf(2, 3, 4, 5, 6, 7, 8, 16)] = 8
    range: Ranged = SEARCHED
    symmetric: bool = False
    granularity: PerTensor | PerToken = PerTensor()
    dynamic: bool = False

    def __post_init__(self) -> None:
        check(self)
        check_width(self.range, self.itype)
        if self.granularity == PerToken() and not self.dynamic:
            raise QuantizationError(
                f"{self}: calibration sees no scale that a token of the next run will have; choose dynamic=True, or "
                "PerTensor()"
            )
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
        check(self)
        if self.weights is None and self.activations is None:
            raise QuantizationError("Layer() changes nothing; give weights or activations")
        if self.activations is not None and self.activations.dynamic:
            raise QuantizationError(
                "Layer(activations=...): dynamic is for a whole recipe, not for single layers"
            )


Override = Annotated[Keep | Layer, "FLOAT or Layer(weights=Weights(...), activations=Activations(...))"]
"""What a recipe may choose for the nodes that a pattern matches."""

SMOOTHING = {"static": 0.85, "dynamic": 0.65}
"""Alpha on MiniLM over docstrings: mean cosine to float 0.997 static, 0.996 dynamic; at 0.5 static it is 0.990, and at
0.85 dynamic 0.992, which is worse than no smoothing at all."""

_RECIPES = "Recipe(), Recipe.plain(), or what read_recipe makes of a TOML file"

FEW_BITS = 4
"""Where layers are rounded in turn, unless a rounding is given: it takes twice the time. ResNet-8 on Fashion-MNIST, 128
pictures: W4A8 keeps 26.4 dB of the logits in place of 22.0, W4A4 14.5 in place of 4.6. At eight bits it pays in dB here
and there and not in answers: EfficientNet-Lite0 25.4 in place of 23.8 dB and 187 in place of 190 of 200 answers, the
MobileNet 36.0 in place of 35.4 and 9,971 in place of 9,970 of 10,000; of nine deployed models (`benchmarks.strangers`)
five lose answers by it and none gains any."""
TRAINED_BITS = 2
"""Weights of static recipes that are rounded each layer for itself all the same: training begins with them, and was
measured from there. `GPTQ(in_turn=True)` leaves ResNet-8 in W2A8 91.7 % right, 1.1 points below float."""


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
    activations are not calibrated.

    `overrides` maps patterns to FLOAT or a `Layer`, for single nodes. A pattern is one of node names in shell style
    (`"classifier*"`, or a whole name), or with `op:` before it one of op types (`"op:Conv"`, `"op:*Pool"`) as they are
    called in the loaded graph. The last pattern that matches a node decides, be it of names or of ops; so the general
    ones come first: `{"op:Conv": Layer(weights=Weights(bits=4)), "stem": FLOAT}`.

    `smooth` lets SmoothQuant act behind every LayerNorm and Gelu, with the alpha that measured best (SMOOTHING), or
    with a number as alpha: 0 leaves the spread of channels in the activations, 1 moves all of it into the weights.
    It changes nothing in networks that have none; False leaves the graph as it is.

    With `GPTQ(in_turn=True)` layers are rounded one after another, each on what it will see: inputs in codes, behind
    layers that are rounded already (`encode.sequential`). It is what rounding None stands for in static recipes whose
    weights have 4 or 3 bits, or whose activations have 4 or fewer. Weights alone are always rounded so in 4 bits or
    fewer. It takes corrected biases.

    With `activations=FLOAT` only the weights become codes: the file shrinks, and the arithmetic stays in float32.

    `processor` is what the file is for: "x86-vnni" (x86 since 2019 or so), "arm", or "x86-avx2" (older x86), where the
    fast kernels add products in pairs in int16, which can saturate. For it weights of 8 bits are rounded so that no
    pair can (`quant.methods.pairs`): exact in every session at the full speed of int8, with slightly coarser scales.
    "any" does the same, and is exact and fast everywhere. None is the processor of this machine, or the one that the
    environment variable EIGHTBIT_PROCESSOR names.
    """

    weights: Weights = Weights()
    activations: Activations | Keep = Activations()
    bias_correction: bool | None = None
    equalize: bool = True
    smooth: Annotated[bool | float, Between(0, 1), "True, False, or a number from 0 to 1"] = True
    overrides: Mapping[str, Override] = FrozenMap()
    processor: Processor | None = None

    def __post_init__(self) -> None:
        check(self)
        if self.weights_only and not isinstance(self.smooth, bool):
            raise QuantizationError(
                f"Recipe(smooth={self.smooth}): SmoothQuant is for activations that become codes, and these stay in "
                "float; leave `smooth` out"
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
        self._check_turns()
        for pattern, choice in self.overrides.items():
            if isinstance(choice, Layer) and choice.activations and (self.weights_only or self.dynamic):
                raise QuantizationError(
                    f"override {pattern!r} chooses activations, which this recipe does not calibrate; "
                    "give Layer(weights=...) alone"
                )

    def _check_turns(self) -> None:
        """Refuse layers in turn where nothing makes up for anything, or for some layers alone."""
        turns = [w for w in self._all_weights() if w.rounding is not None and w.rounding.in_turn]
        if turns and self.weights not in turns:
            raise QuantizationError(
                f"{turns[0].rounding}: all layers are rounded in turn, or none; choose it in the recipe's own weights"
            )
        if turns and self.dynamic:
            raise QuantizationError(
                f"{turns[0].rounding}: dynamic activations have no codes before the network runs; choose "
                "in_turn=False, or static or float activations"
            )

    def __eq__(self, other: object) -> bool:
        """Equal settings; `smooth` True is another choice than 1.0, although Python calls the two equal."""
        return (
            isinstance(other, Recipe)
            and type(self.smooth) is type(other.smooth)
            and all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))
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

    @classmethod
    def of(cls, given: Any) -> Recipe:
        """The recipe that a caller means: the default for None. Raises QuantizationError for anything but a recipe."""
        found: Recipe | None = argument("recipe", given, Annotated[Recipe | None, _RECIPES])
        return cls() if found is None else found

    def settled(self, has_data: bool) -> Recipe:
        """The same recipe with every None replaced by what it stands for.

        Raises CalibrationError where it asks for what only data can tell: an alpha of SmoothQuant, layers in turn;
        QuantizationError for layers in turn without corrected biases.
        """
        if not has_data and not isinstance(self.smooth, bool):
            raise CalibrationError(
                f"smooth={self.smooth} moves what the data say of each channel; give calibration data, or leave "
                "`smooth` out"
            )

        if not has_data and self.weights.rounding is not None and self.weights.rounding.in_turn:
            raise CalibrationError(
                f"{self.weights.rounding} looks at data layer after layer; give calibration data, or choose Nearest()"
            )

        def settle(weights: Weights, in_turn: bool = False) -> Weights:
            looks = GPTQ(in_turn=in_turn) if has_data else Nearest()
            return replace(weights, rounding=weights.rounding or looks)

        correct = has_data if self.bias_correction is None else self.bias_correction
        if self.weights.rounding is not None and self.weights.rounding.in_turn and not correct:
            raise QuantizationError(
                f"{self.weights.rounding} makes up for means by biases; choose in_turn=False, or bias_correction=True"
            )
        overrides = {
            pattern: replace(choice, weights=settle(choice.weights))
            if isinstance(choice, Layer) and isinstance(choice.weights, Weights)
            else choice
            for pattern, choice in self.overrides.items()
        }
        return replace(
            self,
            weights=settle(self.weights, correct and self._few_bits),
            bias_correction=correct,
            overrides=overrides,
            processor=self.processor or this_processor(),
        )

    @property
    def equalizes(self) -> bool:
        """Whether channels are equalized: calibrated codes gain by it, other activations do not."""
        return self.equalize and self.calibrates

    @property
    def holds_pairs(self) -> bool:
        """Whether no pair of 8-bit weights may be too large for a sum in int16, because the processor has such sums."""
        return not self.weights_only and adds_in_int16(self.processor or this_processor())

    @property
    def sequential(self) -> bool:
        """Whether each layer makes up for those before it (`encode.sequential`)."""
        rounding = self.weights.rounding
        if not self.bias_correction or rounding is None or not rounding.needs_data:
            return False
        return rounding.in_turn or (self.weights_only and self.weights.bits <= FEW_BITS)

    @property
    def _few_bits(self) -> bool:
        """Whether static layers gain so much by being rounded in turn that they are, if nothing else is said."""
        bits = self.weights.bits
        return self.calibrates and bits > TRAINED_BITS and min(bits, self.codes.bits) <= FEW_BITS

    @property
    def needs_moments(self) -> bool:
        """Whether the weights' codes depend on the calibration data."""
        roundings = (weights.rounding for weights in self._all_weights())
        return bool(self.bias_correction) or any(r is not None and r.needs_data for r in roundings)

    def keeps_float(self, node: str, op: str) -> bool:
        """Whether an override leaves this node, of this op type, in float."""
        choice = self._override(node, op)
        return choice is FLOAT or (isinstance(choice, Layer) and choice.weights is FLOAT)

    def for_layer(self, node: str, op: str) -> Recipe:
        """The recipe with the weights that its overrides choose for this node, of this op type."""
        choice = self._override(node, op)
        if not isinstance(choice, Layer) or not isinstance(choice.weights, Weights):
            return self
        return replace(self, weights=choice.weights)

    def codes_of(self, node: str, op: str) -> Activations:
        """The choice for what this node writes, or for the graph's input of this name (whose op is "")."""
        choice = self._override(node, op)
        return choice.activations if isinstance(choice, Layer) and choice.activations else self.codes

    def _override(self, node: str, op: str) -> Keep | Layer | None:
        matching = [choice for pattern, choice in self.overrides.items() if matches(pattern, node, op)]
        return matching[-1] if matching else None

    def _all_weights(self) -> Iterator[Weights]:
        yield self.weights
        for choice in self.overrides.values():
            if isinstance(choice, Layer) and isinstance(choice.weights, Weights):
                yield choice.weights
