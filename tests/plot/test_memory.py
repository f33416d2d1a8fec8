"""The picture of an arena shows each buffer where and when it lives."""

import matplotlib

matplotlib.use("Agg")

from eightbit import plot
from eightbit.deploy.c.arena import Buffer, planned


def test_each_buffer_is_a_rectangle_over_its_steps_and_bytes():
    arena = planned([Buffer("a", 100, 0, 1), Buffer("b$1$", 40, 1, 3), Buffer("c", 8, 2, 2)], {})
    axes = plot.arena(arena)
    drawn = sorted(
        (bar.get_x() + 0.5, bar.get_width(), bar.get_y(), bar.get_height()) for bar in axes.patches
    )
    wanted = sorted((b.first, b.last - b.first + 1, arena.offsets[b.name], b.size) for b in arena.buffers)
    assert drawn == wanted
    assert [text.get_text() for text in axes.texts] == ["a", r"b\$1\$"]  # "c" is too flat for a name
    (line,) = (line for line in axes.lines if line.get_label() == "most bytes alive in one step")
    assert set(line.get_ydata()) == {140}
