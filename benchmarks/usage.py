"""What this process has used so far. Nothing but Python's own modules is imported: peers measure themselves with it."""

from __future__ import annotations

import re
import resource
from pathlib import Path


def processor_seconds() -> float:
    """Seconds of the processor."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux).

    Not `getrusage`: its peak is handed from a parent to the child that it starts, and this parent has loaded torch.
    """
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])
