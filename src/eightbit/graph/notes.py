"""What was done to a model on the way that its owner should know of, in sentences beside the graph.

Notes are kept in the graph's metadata, so that copies and pickled graphs have them. Loading a file drops those that it
brings: they told of another loading.
"""

from __future__ import annotations

import json

import onnx_ir as ir

from eightbit.graph.model import OURS

METADATA = f"{OURS}notes"


def note(model: ir.Model, text: str) -> None:
    """Add a sentence to the notes of `model`, in place; one that is there already is not repeated."""
    model.metadata_props[METADATA] = json.dumps([*dict.fromkeys((*notes(model), text))])


def notes(model: ir.Model) -> tuple[str, ...]:
    """The notes of `model`, oldest first."""
    return tuple(json.loads(model.metadata_props.get(METADATA, "[]")))


def drop_notes(model: ir.Model) -> None:
    """Forget the notes of `model`, in place."""
    model.metadata_props.pop(METADATA, None)
