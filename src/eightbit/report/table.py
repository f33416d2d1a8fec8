"""Tables as plain text and as HTML, the same rows in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

from eightbit.errors import printable

NOTE_WIDTH = 88
"""Characters at which a note under a table is broken into lines."""


@dataclass(frozen=True)
class Table:
    """`rows` of cells under `columns` (may be empty); a column whose name ends in `>` is set flush right.

    Cells keep no character that a terminal would obey: names in them come from strangers' files.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        rows = tuple(tuple(printable(cell).replace("\n", "\\n") for cell in row) for row in self.rows)
        object.__setattr__(self, "rows", rows)

    def __str__(self) -> str:
        """The table with its columns aligned, for a fixed-width font; no trailing blanks."""
        names = [c.removesuffix(">") for c in self.columns]
        every = [names, *self.rows] if any(names) else [*self.rows]
        widths = [max((len(row[i]) for row in every), default=0) for i in range(len(names))]
        lines = [self.title] if self.title else []
        if any(names):
            lines += [self._line(names, widths), "  " + "  ".join("-" * w for w in widths)]
        lines += [self._line(row, widths) for row in self.rows]
        if self.note:
            lines += wrap(self.note, NOTE_WIDTH, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)

    def _line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        cells = [
            cell.rjust(width) if name.endswith(">") else cell.ljust(width)
            for cell, width, name in zip(row, widths, self.columns, strict=True)
        ]
        return ("  " + "  ".join(cells)).rstrip()

    def html(self) -> str:
        """The same as an HTML table; the text of every cell is escaped."""
        right = [' style="text-align:right"' if name.endswith(">") else "" for name in self.columns]
        names = [c.removesuffix(">") for c in self.columns]
        head = "".join(f"<th{r}>{escape(n)}</th>" for n, r in zip(names, right, strict=True))
        body = "".join(
            "<tr>" + "".join(f"<td{r}>{escape(c)}</td>" for c, r in zip(row, right, strict=True)) + "</tr>"
            for row in self.rows
        )
        thead = f"<thead><tr>{head}</tr></thead>" if any(names) else ""
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table>{caption}{thead}<tbody>{body}</tbody></table>{note}"


def shape_text(shape: Sequence[int | None] | None) -> str:
    """A shape such as `?x3x32x32`; `scalar` for rank 0 and `unknown` for None."""
    if shape is None:
        return "unknown"
    return "x".join("?" if d is None else str(d) for d in shape) or "scalar"
