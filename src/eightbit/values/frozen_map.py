"""A mapping that cannot be changed, so that a frozen dataclass which holds one is frozen, and can be hashed."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", covariant=True)


class FrozenMap(Mapping[K, V]):
    """Keys and values in the order given. Equal to another with equal pairs in the same order, and to any equal dict.

    It prints as the dict that it was made from, hashes if its values do, copies as itself, and can be pickled.

    >>> FrozenMap({"a": 1, "b": 2}), FrozenMap({"a": 1}) == {"a": 1}
    ({'a': 1, 'b': 2}, True)
    """

    __slots__ = ("_held",)
    _held: Mapping[K, V]

    def __init__(self, pairs: Mapping[K, V] | None = None) -> None:
        object.__setattr__(self, "_held", MappingProxyType(dict(pairs or {})))

    def __getitem__(self, key: K) -> V:
        return self._held[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, FrozenMap):
            return tuple(self.items()) == tuple(other.items())
        return dict(self) == dict(other) if isinstance(other, Mapping) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.items()))

    def __repr__(self) -> str:
        return repr(dict(self))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a FrozenMap cannot be changed; make another from dict(it) to set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a FrozenMap cannot be changed; {name!r} stays")

    def __copy__(self) -> FrozenMap[K, V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenMap[K, V]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenMap, (dict(self),)
