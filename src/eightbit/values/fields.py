"""Frozen dataclasses that check themselves: what a field takes is said once, in its annotation::

    @dataclass(frozen=True)
    class PerGroup:
        size: Annotated[int, AtLeast(2)] = 32

        def __post_init__(self) -> None:
            check(self)

`PerGroup(size=1)`, `PerGroup(size=2.5)` and `PerGroup(size=True)` then raise QuantizationError, with one line that says
what was given and what to give. Numbers are finite; those of NumPy become Python's, so that equal settings are equal,
hash alike and can be written to a file; mappings become `FrozenMap`s and sequences tuples. Beside limits such as
`AtLeast`, an annotation may carry a text, which says what to give in words of its own.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from enum import Enum
from functools import cache
from math import inf, isfinite
from reprlib import Repr
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from eightbit.errors import EightbitError, QuantizationError
from eightbit.values.frozen_map import FrozenMap


class Limit(Protocol):
    """What a number must be; its text completes "a number"."""

    def admits(self, value: float) -> bool:
        """Whether `value` is within the limit."""


@dataclass(frozen=True)
class Between:
    """A number from `lo` to `hi`, both among them."""

    lo: float
    hi: float

    def admits(self, value: float) -> bool:
        """Whether `value` is one of them."""
        return self.lo <= value <= self.hi

    def __str__(self) -> str:
        return f"from {self.lo:g} to {self.hi:g}"


@dataclass(frozen=True)
class AtLeast:
    """A number not below `lo`."""

    lo: float

    def admits(self, value: float) -> bool:
        """Whether `value` is one of them."""
        return value >= self.lo

    def __str__(self) -> str:
        return f"of at least {self.lo:g}"


@dataclass(frozen=True)
class Above:
    """A number above `lo`, and at most `most`."""

    lo: float
    most: float = inf

    def admits(self, value: float) -> bool:
        """Whether `value` is one of them."""
        return self.lo < value <= self.most

    def __str__(self) -> str:
        return f"above {self.lo:g}" + (f" and at most {self.most:g}" if isfinite(self.most) else "")


class OneOf:
    """A number that is one of `choices`."""

    def __init__(self, *choices: int) -> None:
        self.choices = choices

    def admits(self, value: float) -> bool:
        """Whether `value` is one of them."""
        return value in self.choices

    def __str__(self) -> str:
        return f"equal to {_listed([str(choice) for choice in self.choices])}"

    def __repr__(self) -> str:
        return f"OneOf({', '.join(map(str, self.choices))})"


class Unfit(Exception):
    """A value that a field does not take: where in the field it lies, the value, and what to give."""

    def __init__(self, value: Any, wanted: str, place: str = "") -> None:
        super().__init__(wanted)
        self.value, self.wanted, self.place = value, wanted, place


def check(made: Any, error: type[EightbitError] = QuantizationError) -> None:
    """Check each field of a frozen dataclass against its annotation, and put what it stands for in its place.

    For `__post_init__`. Raises `error`, whose one line names the class, the field, the value found and what to give.
    """
    kind: Any = type(made)
    for name, reader in _readers(kind).items():
        value = getattr(made, name)
        try:
            object.__setattr__(made, name, reader.read(value))
        except Unfit as found:
            given = f"{name}{found.place}={_short(found.value)}"
            raise error(f"{kind.__name__}({given}): {_remedy(found)}") from None


def argument(name: str, value: Any, hint: Any, error: type[EightbitError] = QuantizationError) -> Any:
    """Check an argument of a function as `check` does a field, and return what it stands for. Raises `error`.

    >>> argument("samples", np.int64(3), Annotated[int, AtLeast(1)])
    3
    """
    try:
        return _reader(hint).read(value)
    except Unfit as found:
        raise error(f"{name}{found.place}={_short(found.value)}: {_remedy(found)}") from None


@dataclass(frozen=True)
class _Reader:
    """How one annotation is read: the value to keep, or Unfit. `wanted` says what to give."""

    wanted: str
    read: Callable[[Any], Any]


@cache
def _readers(kind: Any) -> Mapping[str, _Reader]:
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: _reader(hints[f.name]) for f in fields(kind) if f.init}


def _reader(hint: Any) -> _Reader:
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any or isinstance(hint, TypeVar):
        return _Reader("anything", lambda value: value)
    if origin is Annotated:
        return _limited(_reader(parts[0]), parts[1:])
    if origin in (Union, types.UnionType):
        return _either([_reader(part) for part in parts])
    if origin is Literal:
        return _plain(_listed([repr(part) for part in parts]), lambda value: value in parts)
    if origin is tuple:
        return _tuple(parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_reader(parts[0]), _reader(parts[1]))
    if origin is not None:
        return _of_type(origin)
    return _NUMBERS[hint] if hint in _NUMBERS else _of_type(hint)


def _of_type(kind: type) -> _Reader:
    """Instances of a class; where it is a protocol, of any class that has its methods and can be hashed."""
    if kind is type(None):
        return _plain("None", lambda value: value is None)
    if issubclass(kind, Enum):
        return _plain(_listed([repr(member) for member in kind]), lambda value: isinstance(value, kind))
    wanted = _call(kind)
    if not getattr(kind, "_is_protocol", False):
        return _plain(wanted, lambda value: isinstance(value, kind))
    fits = lambda value: isinstance(value, kind) and not isinstance(value, type) and _hashes(value)  # noqa: E731
    return _plain(wanted, fits)


def _plain(wanted: str, fits: Callable[[Any], bool]) -> _Reader:
    def read(value: Any) -> Any:
        if fits(value):
            return value
        raise Unfit(value, wanted)

    return _Reader(wanted, read)


def _limited(inner: _Reader, extras: tuple[Any, ...]) -> _Reader:
    """With the limits that an annotation carries; a text among them takes the place of what is wanted."""
    limits: list[Limit] = [extra for extra in extras if not isinstance(extra, str)]
    texts = [extra for extra in extras if isinstance(extra, str)]
    wanted = texts[0] if texts else " ".join([inner.wanted, *map(str, limits)])

    def read(value: Any) -> Any:
        try:
            found = inner.read(value)
        except Unfit as cause:
            raise Unfit(cause.value, wanted if not cause.place else cause.wanted, cause.place) from None
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if number and not all(limit.admits(found) for limit in limits):
            raise Unfit(value, wanted)
        return found

    return _Reader(wanted, read)


def _either(options: list[_Reader]) -> _Reader:
    """The first of several readers that takes the value. A wrong part of a mapping or tuple is named as such."""
    wanted = _listed([option.wanted for option in options])

    def read(value: Any) -> Any:
        inside = None
        for option in options:
            try:
                return option.read(value)
            except Unfit as cause:
                inside = cause if cause.place else inside
        raise inside or Unfit(value, wanted)

    return _Reader(wanted, read)


def _mapping(keys: _Reader, values: _Reader) -> _Reader:
    wanted = f"a dict from {keys.wanted} to {values.wanted}"

    def read(value: Any) -> FrozenMap[Any, Any]:
        if not isinstance(value, Mapping):
            raise Unfit(value, wanted)
        found = {}
        for key, item in value.items():
            try:
                known = keys.read(key)
            except Unfit as cause:
                raise Unfit(key, f"{cause.wanted} as a key", " key") from None
            try:
                found[known] = values.read(item)
            except Unfit as cause:
                raise Unfit(cause.value, cause.wanted, f"[{_short(key)}]{cause.place}") from None
        return FrozenMap(found)

    return _Reader(wanted, read)


def _tuple(parts: tuple[Any, ...]) -> _Reader:
    many = len(parts) == 2 and parts[1] is Ellipsis
    readers = [_reader(part) for part in parts if part is not Ellipsis]
    wanted = f"a tuple of {readers[0].wanted}" if many else f"({', '.join(r.wanted for r in readers)})"

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, tuple | list) or not (many or len(value) == len(readers)):
            raise Unfit(value, wanted)
        found = []
        for place, item in enumerate(value):
            try:
                found.append(readers[0 if many else place].read(item))
            except Unfit as cause:
                raise Unfit(cause.value, cause.wanted, f"[{place}]{cause.place}") from None
        return tuple(found)

    return _Reader(wanted, read)


def _integer(value: Any) -> int:
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise Unfit(value, "an integer")


def _number(value: Any) -> float:
    try:
        if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
            number = float(value)
            if isfinite(number):
                return number
    except OverflowError:  # an integer beyond all floats
        pass
    raise Unfit(value, "a number")


def _truth(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise Unfit(value, "True or False")


_NUMBERS: dict[Any, _Reader] = {
    bool: _Reader("True or False", _truth),
    int: _Reader("an integer", _integer),
    float: _Reader("a number", _number),
    str: _plain("a text", lambda value: isinstance(value, str)),
}


def _remedy(found: Unfit) -> str:
    """What to do about it; a class that was given without its brackets is the commonest slip."""
    slip = f"{found.value.__name__} is a class; " if isinstance(found.value, type) else ""
    return f"{slip}give {found.wanted}"


def _call(kind: type) -> str:
    """How a value of a class is written: `MinMax()`, `Flip(...)` where arguments are needed, else the class's name."""
    if not is_dataclass(kind):
        return f"a value of type {kind.__name__}"
    needed = any(f.init and f.default is MISSING and f.default_factory is MISSING for f in fields(kind))
    return f"{kind.__name__}({'...' if needed else ''})"


def _listed(options: list[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _hashes(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


_REPR = Repr()
_REPR.maxstring = _REPR.maxother = 100


def _short(value: Any) -> str:
    """The value on one line, cut in the middle if it is long."""
    return " ".join((value.__name__ if isinstance(value, type) else _REPR.repr(value)).split())
