"""The look of the book's figures: colours for any colour vision, opaque white for light and dark pages alike."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import ModuleType
from typing import TYPE_CHECKING, Any

from eightbit.errors import MissingExtra, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73"),
    *("#F0E442", "#0072B2", "#D55E00", "#CC79A7"),
)
"""Okabe and Ito, "Color Universal Design" (2008). Float is blue, int8 is vermilion, everywhere in the book."""

LABEL = 60
"""Characters of a name that a figure has room for; of longer ones the middle is left out."""

FLOAT_COLOR, INT8_COLOR = BLUE, VERMILION


def style(*, fine: bool = True, **extra: Any) -> AbstractContextManager[None]:
    """A context manager that gives figures the book's look; `extra` are further rcParams.

    A figure is six inches wide, with letters of 11.5 points: where a phone makes it 350 pixels wide, they have nine.
    Panels stand one above the other. In a notebook, pictures have from now on two pixels where the page has one, or one
    if not `fine` (photographs, which gain nothing by it and weigh four times as much), unless the notebook has chosen
    another format itself. Raises MissingExtra without matplotlib.
    """
    plt = pyplot()
    _set_density("retina" if fine else "png")
    cycle = plt.cycler(color=[BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK])
    look = {
        "figure.figsize": (6.0, 3.6),
        "figure.dpi": 110,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "savefig.bbox": "tight",
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.h_pad": 0.08,  # inches
        "axes.prop_cycle": cycle,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e3e3e3",
        "grid.linewidth": 0.7,
        "font.size": 11.5,
        "axes.titlesize": 12,
        "legend.frameon": False,
    }
    context: AbstractContextManager[None] = plt.rc_context(look | extra)
    return context


def _set_density(chosen: str) -> None:
    """Have a notebook draw "png", or "retina": twice as densely, with the size on the page beside the picture."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if not hasattr(shell, "kernel"):
        return
    from matplotlib_inline.config import InlineBackend

    inline = InlineBackend.instance(parent=shell)
    if inline.figure_formats <= {"png", "retina"}:
        inline.figure_formats = {chosen}


def pyplot() -> ModuleType:
    """matplotlib.pyplot. Raises MissingExtra without matplotlib."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as cause:
        raise MissingExtra("matplotlib", "plot") from cause
    return plt


def label(name: str) -> str:
    r"""A tensor's or node's name as a figure may show it: as it is, never as a formula, and no longer than LABEL.

    >>> print(label("w$1$"))
    w\$1\$
    """
    shown = printable(name).replace("\n", "\\n")
    if len(shown) > LABEL:
        shown = f"{shown[: LABEL // 2 - 1]}…{shown[-LABEL // 2 :]}"
    return shown.replace("$", r"\$")


def axes_for(ax: Axes | None) -> Any:
    """`ax`, or the Axes of a new figure."""
    return pyplot().subplots()[1] if ax is None else ax
