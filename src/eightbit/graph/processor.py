"""What this machine's processor does to sums of eight-bit products."""

from __future__ import annotations

from pathlib import Path


def cpu_flags(path: str = "/proc/cpuinfo") -> frozenset[str]:
    """The flags of an x86 processor as Linux lists them; empty elsewhere."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())


def pairs_saturate(flags: frozenset[str]) -> bool:
    """Whether fast kernels add products of uint8 and int8 in pairs that saturate at int16: AVX2 without VNNI.

    Source: Intel's VPMADDUBSW, and onnxruntime#6004. Weight codes of magnitude 64 and below are safe there.
    """
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & flags
