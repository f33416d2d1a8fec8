"""Where commands write: looked at before the work begins."""

from __future__ import annotations

import os
from pathlib import Path

from eightbit.errors import ExportError
from eightbit.files import check_place


def check_places(*places: Path | None, beside: tuple[Path | None, ...] = ()) -> None:
    """Refuse a place that cannot be written before the work begins, and one that would replace what is read or written.

    `beside` are files that the command reads, and whose place no output may take.
    """
    outputs = [place for place in places if place is not None]
    for i, place in enumerate(outputs):
        check_place(place)
        for other in [*outputs[:i], *beside]:
            if other is not None and _same(place, other):
                raise ExportError(
                    f"cannot write {place}: this command also uses it as {other}; give another name"
                )


def _same(one: Path, other: Path) -> bool:
    """Whether two paths are one file; devices and pipes bear more than one use."""
    if os.path.realpath(one) == os.path.realpath(other):
        return not one.exists() or one.is_file()
    return one.is_file() and other.is_file() and one.samefile(other)
