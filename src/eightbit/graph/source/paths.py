"""A path -> float graph: by what lies there, the reader for it.

Files whose names do not say what they are are taken for ONNX, and whatever is wrong with one is said of that.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx_ir as ir

from eightbit.errors import LoadError
from eightbit.graph.source.keras_model import from_keras_file, from_saved_model
from eightbit.graph.source.onnx_file import read_file
from eightbit.graph.source.torch_module import from_exported_file

SAVED_MODEL = "saved_model.pb"
NO_GRAPH = {
    **dict.fromkeys(
        (".pt", ".pth", ".ckpt", ".bin"),
        "PyTorch's weights or pickled objects; make the module, load its weights and give it to eightbit.load with an "
        "example, or export it with torch.export.save to a .pt2 file",
    ),
    ".safetensors": "weights alone; give eightbit.load the model that they belong to",
    ".tflite": "a graph for another runtime; give the model that it was converted from",
}
"""Files that hold no float graph, by their suffix: what they hold and what to do."""


def from_path(path: str | os.PathLike[str]) -> ir.Model:
    """The float graph at `path`: an ONNX, .keras, .h5 or .pt2 file, or the folder of a TensorFlow SavedModel.

    Raises LoadError, or MissingExtra where a framework's file needs the framework.
    """
    place = Path(path)
    suffix = place.suffix.lower()
    if os.path.isdir(place):  # unlike pathlib's, no error for a name that is too long
        if not (place / SAVED_MODEL).is_file():
            raise LoadError(
                f"{place} is a folder without a {SAVED_MODEL}; give the path of a model's file, or of the folder of a "
                "SavedModel"
            )
        return from_saved_model(place)
    if os.path.isfile(place):
        if suffix in (".keras", ".h5", ".hdf5"):
            return from_keras_file(place)
        if suffix == ".pt2":
            return from_exported_file(place)
        if suffix in NO_GRAPH:
            raise LoadError(f"{place} holds {NO_GRAPH[suffix]}")
    return read_file(place)
