"""The picture of an arena shows each buffer where and when it lives."""

import matplotlib

matplotlib.use("Agg")

from eightbit import plot
from eightbit.deploy.c.arena import Buffer, planned


def test_each_buffer_is_a_rectangle_over_its_steps_and_bytes():
    arena = planned([Buffer("a", 100, 0, 1), Buffer("b$1$", 40, 1, 3), Buffer("c", 2, 2, 2)], {})
    axes = plot.arena(arena)
    drawn = sorted(
        (bar.get_x() + 0.5, bar.get_width(), bar.get_y(), bar.get_height()) for bar in axes.patches
    )
    wanted = sorted((b.first, b.last - b.first + 1, arena.offsets[b.name], b.size) for b in arena.buffers)
    assert drawn == wanted
    assert [text.get_text() for text in axes.texts if text.get_visible()] == [
        "a",
        r"b\$1\$",
    ]  # "c" is too flat
    (line,) = (line for line in axes.lines if line.get_label() == "most bytes alive in one step")
    assert set(line.get_ydata()) == {140}


def test_a_name_is_where_it_fits_or_upright_or_not_there():
    long = "stacks.1.body.2_q"
    arena = planned(
        [Buffer("wide", 100, 0, 9), Buffer(long, 100, 3, 3), Buffer(f"{long}.scratch", 9, 5, 5)], {}
    )
    axes = plot.arena(arena)
    shown = {text.get_text(): text for text in axes.texts if text.get_visible()}
    assert {name: text.get_rotation() for name, text in shown.items()} == {"wide": 0, long: 90}
    for text in shown.values():
        x, y = text.get_position()
        assert any(bar.get_bbox().contains(x, y) for bar in axes.patches)
