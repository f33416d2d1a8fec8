"""A mapping that stays as it was made."""

import copy
import pickle

import pytest

from eightbit.values.frozen_map import FrozenMap

HELD = FrozenMap({"b": 1, "a": (2, 3)})


def test_it_reads_like_a_dict_and_prints_like_one():
    assert (HELD["b"], list(HELD), len(HELD), "a" in HELD, HELD.get("c")) == (1, ["b", "a"], 2, True, None)
    assert repr(HELD) == "{'b': 1, 'a': (2, 3)}"
    assert {**HELD} == HELD == {"a": (2, 3), "b": 1}


def test_the_order_counts_between_frozen_maps():
    other = FrozenMap({"a": (2, 3), "b": 1})
    assert other != HELD and FrozenMap(dict(HELD)) == HELD and HELD != {"b": 1} and HELD != "b"
    assert hash(HELD) == hash(FrozenMap(dict(HELD))) != hash(other)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.__setitem__("b", 2),
        lambda m: m.__delitem__("b"),
        lambda m: setattr(m, "_held", {}),
        lambda m: delattr(m, "_held"),
        lambda m: m._held.__setitem__("b", 2),
        lambda m: m.update(b=2),
        lambda m: m.pop("b"),
    ],
)
def test_nothing_changes_it(change):
    with pytest.raises((TypeError, AttributeError)):
        change(HELD)
    assert HELD == {"a": (2, 3), "b": 1}


def test_what_it_was_made_from_may_change():
    source = {"a": 1}
    made = FrozenMap(source)
    source["a"] = 2
    assert made == {"a": 1}


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_it_copies_and_pickles(duplicate):
    found = duplicate(HELD)
    assert isinstance(found, FrozenMap) and found == HELD and hash(found) == hash(HELD)
