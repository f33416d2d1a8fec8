"""What a field's annotation says is what the dataclass takes."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

import numpy as np
import pytest
from numpy.typing import NDArray

from eightbit.errors import EngineError, QuantizationError
from eightbit.values.fields import Above, AtLeast, Between, OneOf, argument, check
from eightbit.values.frozen_map import FrozenMap


class Colour(Enum):
    RED = 1
    BLUE = 2

    def __repr__(self) -> str:
        return self.name


@runtime_checkable
class Speaks(Protocol):
    def speak(self) -> str: ...


@dataclass(frozen=True)
class Dog:
    def speak(self) -> str:
        return "woof"


@dataclass
class Parrot:  # not frozen, so it has no hash
    said: str = ""

    def speak(self) -> str:
        return self.said


@dataclass(frozen=True)
class Pair:
    left: int
    right: int


@pytest.mark.parametrize(
    ("hint", "given", "kept"),
    [
        (int, np.int16(3), 3),
        (float, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (bool, np.True_, True),
        (str, "a", "a"),
        (int | None, None, None),
        (bool | float, True, True),
        (bool | float, 1, 1.0),
        (Literal["a", "b"], "b", "b"),
        (Colour, Colour.RED, Colour.RED),
        (tuple[int, ...], [1, np.int8(2)], (1, 2)),
        (tuple[int, str], (1, "a"), (1, "a")),
        (Mapping[str, int], {"a": np.int64(1)}, FrozenMap({"a": 1})),
        (Annotated[int, Between(2, 4)], 4, 4),
        (Annotated[float, Above(0, most=1)], 1, 1.0),
        (Annotated[int, OneOf(8, 16)], np.uint8(16), 16),
        (Annotated[float, AtLeast(0)] | None, 0, 0.0),
        (Speaks, Dog(), Dog()),
        (Any, math.nan, math.nan),
    ],
)
def test_what_fits_is_kept_in_pythons_own_types(hint, given, kept):
    found = argument("x", given, hint)
    assert type(found) is type(kept)
    assert found == kept or found is kept


def test_arrays_and_functions_pass_as_they_are():
    array = np.zeros(3)
    assert argument("x", array, NDArray[np.float64]) is array
    assert argument("x", len, Callable[[Any], int]) is len
    for wrong, hint in (([0.0], NDArray[np.float64]), ("len", Callable[[Any], int])):
        with pytest.raises(QuantizationError, match="x="):
            argument("x", wrong, hint)


@pytest.mark.parametrize(
    ("hint", "given", "said"),
    [
        (int, 3.0, "x=3.0: give an integer"),
        (int, True, "x=True: give an integer"),
        (int, "3", "x='3': give an integer"),
        (int, None, "x=None: give an integer"),
        (float, math.nan, "x=nan: give a number"),
        (float, -math.inf, "x=-inf: give a number"),
        (float, 10**400, "give a number"),
        (float, np.float32("nan"), "give a number"),
        (float, Fraction(1, 2), "x=Fraction(1, 2): give a number"),
        (float, False, "x=False: give a number"),
        (bool, 1, "x=1: give True or False"),
        (str, b"a", "x=b'a': give a text"),
        (int | None, "a", "x='a': give an integer or None"),
        (Literal["a", "b"], "c", "x='c': give 'a' or 'b'"),
        (Colour, "RED", "x='RED': give RED or BLUE"),
        (Dog, "Dog", "x='Dog': give Dog()"),
        (Dog, Dog, "x=Dog: Dog is a class; give Dog()"),
        (Pair, 3, "x=3: give Pair(...)"),
        (Speaks, Dog, "x=Dog: Dog is a class; give a value of type Speaks"),
        (Speaks, Parrot(), "give a value of type Speaks"),
        (Speaks, 3, "x=3: give a value of type Speaks"),
        (tuple[int, ...], 3, "x=3: give a tuple of an integer"),
        (tuple[int, ...], (1, "b"), "x[1]='b': give an integer"),
        (tuple[int, str], (1,), "x=(1,): give (an integer, a text)"),
        (Mapping[str, int], [("a", 1)], "x=[('a', 1)]: give a dict from a text to an integer"),
        (Mapping[str, int], {"a": "b"}, "x['a']='b': give an integer"),
        (Mapping[str, int], {1: 2}, "x key=1: give a text as a key"),
        (Mapping[str, Mapping[str, int]], {"a": {"b": None}}, "x['a']['b']=None: give an integer"),
        (Mapping[str, int] | None, {"a": "b"}, "x['a']='b': give an integer"),
        (Annotated[int, Between(2, 4)], 5, "x=5: give an integer from 2 to 4"),
        (Annotated[int, Between(2, 4)], "5", "x='5': give an integer from 2 to 4"),
        (Annotated[float, Above(0)], 0, "x=0: give a number above 0"),
        (Annotated[float, Above(0, most=1)], 1.5, "x=1.5: give a number above 0 and at most 1"),
        (Annotated[int, AtLeast(2)], 1, "x=1: give an integer of at least 2"),
        (Annotated[int, OneOf(8, 16)], 9, "x=9: give an integer equal to 8 or 16"),
        (Annotated[Colour | None, "a colour"], "RED", "x='RED': give a colour"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(hint, given, said):
    with pytest.raises(QuantizationError, match=re.escape(said)) as caught:
        argument("x", given, hint)
    assert "\n" not in str(caught.value)


def test_a_dataclass_names_itself_and_its_field_and_keeps_what_fits():
    @dataclass(frozen=True)
    class Box:
        width: Annotated[float, Above(0)]
        marks: Mapping[str, int] = FrozenMap()

        def __post_init__(self) -> None:
            check(self, EngineError)

    made = Box(np.int64(2), {"a": 1})
    assert made == Box(2.0, FrozenMap({"a": 1})) and hash(made) == hash(Box(2.0, {"a": 1}))
    with pytest.raises(EngineError, match=r"Box\(width=-1\): give a number above 0"):
        Box(-1)
    with pytest.raises(EngineError, match=r"Box\(marks\['a'\]='b'\): give an integer"):
        Box(1, {"a": "b"})


def test_a_long_value_is_cut():
    with pytest.raises(QuantizationError) as caught:
        argument("x", {f"key {i}": "v" * 1000 for i in range(100)}, Mapping[str, int])
    assert len(str(caught.value)) < 300
