"""Nothing that is needed is overwritten, and the arena is as small as the cases allow that a person can solve."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from eightbit.deploy.c.arena import ALIGNMENT, Buffer, planned
from eightbit.deploy.layout.views import View
from eightbit.deploy.layout.windows import Windows


@st.composite
def lifetimes(draw: st.DrawFn) -> tuple[list[Buffer], dict[tuple[str, str], int]]:
    """Buffers, some with lifetimes that are equal or touch, and gaps between outputs and their inputs."""
    count = draw(st.integers(0, 12))
    buffers = []
    for i in range(count):
        first = draw(st.integers(0, 6))
        buffers.append(Buffer(f"b{i}", draw(st.integers(1, 70)), first, first + draw(st.integers(0, 3))))
    gaps = {
        (y.name, x.name): draw(st.integers(-x.size, y.size))
        for y in buffers
        for x in buffers
        if x is not y and x.first < y.first and draw(st.booleans())
    }
    return buffers, gaps


@settings(max_examples=40)
@given(lifetimes())
def test_what_lives_at_the_same_time_lies_apart(
    case: tuple[list[Buffer], dict[tuple[str, str], int]],
) -> None:
    buffers, gaps = case
    arena = planned(buffers, gaps)
    assert {b.name for b in arena.buffers} == {b.name for b in buffers}
    assert all(at >= 0 and at % ALIGNMENT == 0 for at in arena.offsets.values())
    for i, x in enumerate(buffers):
        for y in buffers[i + 1 :]:
            if x.first > y.last or y.first > x.last:
                continue
            x_at, y_at = arena.offsets[x.name], arena.offsets[y.name]
            apart = x_at + x.size <= y_at or y_at + y.size <= x_at
            over_x = x.last == y.first and (y.name, x.name) in gaps and x_at - y_at >= gaps[y.name, x.name]
            over_y = y.last == x.first and (x.name, y.name) in gaps and y_at - x_at >= gaps[x.name, y.name]
            assert apart or over_x or over_y, (x, x_at, y, y_at)


@settings(max_examples=40)
@given(lifetimes())
def test_without_sharing_it_holds_at_least_what_is_alive(case: tuple[list[Buffer], dict]) -> None:
    arena = planned(case[0], {})
    assert arena.size >= arena.most_live
    assert arena.size <= sum(b.size + ALIGNMENT for b in case[0])


def test_equal_lifetimes_do_not_meet_in_one_place() -> None:
    arena = planned([Buffer("a", 8, 0, 1), Buffer("b", 8, 0, 1)], {})
    assert sorted(arena.offsets.values()) == [0, 8]


def test_a_chain_alternates_between_two_ends() -> None:
    chain = [Buffer(f"b{i}", size, i, i + 1) for i, size in enumerate((100, 40, 100, 40, 60))]
    assert planned(chain, {}).size == 140


def test_an_output_slides_into_its_input() -> None:
    """A residual block: the skip lives through it, and the convolutions between need one image and a few rows."""
    image, gap = 1000, 64
    buffers = [
        Buffer("skip", image, 0, 3),
        Buffer("mid", image, 1, 2),
        Buffer("out", image, 2, 3),
        Buffer("sum", image, 3, 4),
    ]
    gaps = {("out", "mid"): gap, ("sum", "skip"): 0, ("sum", "out"): 0}
    arena = planned(buffers, gaps)
    assert arena.most_live == 3 * image
    assert arena.size == 2 * image + gap
    assert "arena 2,064 bytes; 3,000 alive in one step" in str(arena)
    assert planned(buffers, {}).size == 3 * image


@given(st.data())
def test_rows_are_read_before_they_are_overwritten(data: st.DataObject) -> None:
    """Row by row: what a row of the output needs begins behind all that is written up to the end of that row."""
    n = {
        name: data.draw(st.integers(1, 9), label=name)
        for name in ("height", "width", "in_c", "out_c", "out_w")
    }
    kernel, stride, dilation = (data.draw(st.integers(1, 3)) for _ in range(3))
    top = data.draw(st.integers(0, 3))
    out_h = data.draw(st.integers(1, 9))
    windows = Windows(
        1, (n["height"], n["width"]), (out_h, n["out_w"]), (kernel, 1), (stride, 1), (top, 0), (dilation, 1)
    )
    x = View("x", (1, n["in_c"], n["height"], n["width"]), (0, 2, 3, 1))
    gap = windows.gaps(x, n["in_c"], n["out_c"])["x"]
    in_row, out_row = n["width"] * n["in_c"], n["out_w"] * n["out_c"]
    for r in range(out_h):
        written = (r + 1) * out_row  # the output begins at 0, the input at `gap`
        later = [s * stride - top + k * dilation for s in range(r, out_h) for k in range(kernel)]
        needed = [gap + row * in_row for row in later if 0 <= row < n["height"]]
        assert written <= min(needed, default=written)
