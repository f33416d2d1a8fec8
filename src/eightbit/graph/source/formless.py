"""Which layer of a PyTorch module computes what has no form in ONNX: the exporter names the operation alone."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='([\w.]+)', overload='(\w+)'\)>")


def formless(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], said: str) -> str:
    """What to say of a failed export of `module`: `said`, or the layer and the operation that it lacks a form for."""
    found = MISSING.search(said)
    if found is None:
        return said
    op, layer = found.group(1), None
    with suppress(Exception):  # it was exported once, but for the last step
        program = sys.modules["torch"].export.export(module, args, dict(kwargs)).run_decompositions()
        nodes = (n for n in program.graph.nodes if str(n.target) == f"{op}.{found.group(2)}")
        layer = [path for path, _ in next(nodes).meta["nn_module_stack"].values() if path][-1]
    where = "it" if layer is None else f"its layer '{layer}'"
    return (
        f"{where} computes {op}, which has no form in ONNX; leave it out, or write it with other operations"
    )
