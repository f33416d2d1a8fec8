"""What this machine's processor is, and what its kernels do to sums of eight-bit products.

Some x86 kernels add the products of uint8 and int8 in pairs, in int16, and the pair saturates: 255 * 127 * 2 = 64,770
comes to 32,767 (Intel's VPMADDUBSW; onnxruntime#6004). Weight codes of magnitude 64 and below are safe there.
"""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from eightbit.errors import QuantizationError
from eightbit.graph.model import OURS

Processor = Literal["any", "x86-avx2", "x86-vnni", "arm"]
"""What int8 is made for: "x86-avx2" adds pairs in int16, "x86-vnni" (newer x86) and "arm" do not, "any" suits all."""
VARIABLE = "EIGHTBIT_PROCESSOR"
"""The environment variable that says what `this_processor` answers: for files made on one machine and run on another,
and for results that do not depend on the machine. It says nothing of how sessions here compute."""
METADATA = f"{OURS}processor"
"""Where a graph whose weights were held to such pairs names its processor."""

LARGEST_UINT8, LARGEST_INT8 = 255, 127
CPUINFO = Path("/proc/cpuinfo")
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimddp": "dot products",
    "i8mm": "int8 matrix products",
    "sve": "SVE",
}
"""Instructions that decide how fast int8 is, as Linux calls them and as their makers do."""


@lru_cache(maxsize=1)
def pairs_saturate() -> bool:
    """Whether ONNX Runtime's kernels saturate such pairs on this machine.

    A kernel is asked for the sum of one pair, once a process (5 ms). What the system says of its processor is no
    answer: an emulator shows that of its host, a virtual machine may hide instructions, and only Linux has a list.
    """
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    x, y = (
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("x", TensorProto.UINT8, (1, 2)), ("y", TensorProto.INT32, (1, 1)))
    )
    w = helper.make_tensor("w", TensorProto.INT8, (2, 1), [LARGEST_INT8] * 2)
    model = helper.make_model(
        helper.make_graph([node], "pair", [x], [y], [w]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.full((1, 2), LARGEST_UINT8, np.uint8)})
    return int(found.item()) != 2 * LARGEST_UINT8 * LARGEST_INT8


def this_processor() -> Processor:
    """What files are made for where nothing else is said: EIGHTBIT_PROCESSOR, or else the machine that this runs on.

    Raises QuantizationError for a value of the variable that is none.
    """
    said = os.environ.get(VARIABLE)
    for known in get_args(Processor):
        if said == known:
            return known
    if said:
        known = ", ".join(map(repr, get_args(Processor)))
        raise QuantizationError(
            f"{VARIABLE} is {said!r}; choose one of {known}, or unset it for this machine's"
        )
    if platform.machine().lower() in ("aarch64", "arm64"):
        return "arm"
    return "x86-avx2" if pairs_saturate() else "x86-vnni"


def adds_in_int16(processor: Processor) -> bool:
    """Whether weights for this processor must hold their pairs inside int16."""
    return processor in ("any", "x86-avx2")


def would_saturate(flags: frozenset[str]) -> bool:
    """Whether they would on an x86 processor of these `flags`, as Linux names them: AVX2 without VNNI."""
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & flags


def processor_name() -> str:
    """What the system calls its processor."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def processor_features() -> tuple[str, ...]:
    """The `FEATURES` that Linux lists for its processor, the host's where it is emulated; none on other systems."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return tuple(title for flag, title in FEATURES.items() if flag in flags)


def _cpuinfo() -> dict[str, str]:
    """The fields of the first core that Linux describes."""
    try:
        text = CPUINFO.read_text()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
