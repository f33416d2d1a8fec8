"""Numbers in printed text: what is one, what its tolerance is, and that one digit too many is seen."""

from decimal import Decimal

import pytest

from tests.site.numbers import BadTag, Tolerance, counted, settle, split, unused


def agree(page: str, new: str, *tags: str) -> bool:
    """Whether the texts agree; the settled text must then be the page's, and must not be it otherwise."""
    settled, faults = settle(page, new, Tolerance.of(tags))
    assert (faults == []) == (settled == page)
    return faults == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("int8 of conv5_block1 in blocks.7.project.0", []),
        ("24.3 dB, -0.5 and +1.27, 1,234,567 bytes", ["24.3", "-0.5", "+1.27", "1,234,567"]),
        ("[90.16%, 98.43%] x-3 2**-12", ["90.16", "98.43", "3", "2", "-12"]),
        ("1.42e-07 .. 0.138 (32)", ["1.42e-07", "0.138", "32"]),
        ("W4A8, x86, nan, inf, −4", ["−4"]),
        ("12, 13", ["12", "13"]),
    ],
)
def test_numbers_are_found_and_names_are_text(text: str, numbers: list[str]):
    pieces, found = split(text)
    assert [n.text for n in found] == numbers
    assert "".join(a + b for a, b in zip(pieces, [*numbers, ""], strict=True)) == text


def test_a_number_knows_what_follows_it_and_what_it_says():
    found = split("24.3 dB, 96%, 96 %, 1,758 pictures, 7\n8 −1.5e-3")[1]
    assert [n.unit for n in found] == ["dB", "%", "%", "pictures", "", "", ""]
    assert [n.decimal for n in found] == [True, False, False, False, False, False, True]
    assert found[3].value == 1758
    assert split("−1.5e-3")[1][0].value == Decimal("-0.0015")


@pytest.mark.parametrize("new", ["24.4 dB", "24.30 dB", "24.3  dB", "24.3 dB\n", "24.3 db", "25.3 dB", ""])
def test_without_a_tag_nothing_may_differ(new: str):
    assert agree("24.3 dB", "24.3 dB")
    assert not agree("24.3 dB", new)


@pytest.mark.parametrize(
    ("tag", "page", "good", "bad"),
    [
        ("atol=0.1", "24.3", ["24.4", "24.2", "24.30"], ["24.5", "24.1", "-24.3", "24.401"]),
        ("rtol=0.01", "200.0", ["202.0", "198.0"], ["202.1", "197.9"]),
        ("rtol=0.01", "-200.0", ["-202.0"], ["-202.1", "200.0"]),
        ("atol=0.1", "7 of 9", ["7 of 9"], ["8 of 9", "7 of 8"]),
        ("counts=1", "7 of 9, 0.5", ["8 of 9, 0.5", "6 of 10, 0.5"], ["9 of 9, 0.5", "7 of 9, 0.6"]),
        ("atol=1%", "96% of 7.5", ["97% of 7.5", "95% of 7.5"], ["98% of 7.5", "96% of 7.6", "96 of 7.5"]),
        ("atol=0.2dB", "8.1 dB, 96.00%", ["8.3 dB, 96.00%"], ["8.4 dB, 96.00%", "8.1 dB, 96.01%"]),
        ("atol=0.1int8", "0.5 float, 0.5 int8", ["0.5 float, 0.6 int8"], ["0.6 float, 0.5 int8"]),
        ("rtol=0.1pictures", "1,000 pictures", ["1,100 pictures", "999 pictures"], ["1,101 pictures"]),
        (
            "last=4",
            "0.3739 35.5 +0.04 8",
            ["0.3743 35.9 -0.00 8"],
            ["0.3744 35.5 +0.04 8", "0.3739 36.0 +0.04 8"],
        ),
        (
            "counts=0.001%",
            "95,002,753 84",
            ["95,002,054 84", "95,003,703 84"],
            ["95,003,704 84", "95,002,753 85"],
        ),
        ("last=2%", "7% 7.5", ["9% 7.5"], ["10% 7.5", "7% 7.6"]),
        ("last=1", "1.42e-07", ["1.43e-07", "1.41e-7"], ["1.44e-07", "1.42e-06"]),
        ("atol=1e-3", "0.002", ["0.001", "1e-3"], ["0.0005", "0.0031"]),
    ],
)
def test_a_tag_allows_so_much_and_not_a_digit_more(tag: str, page: str, good: list[str], bad: list[str]):
    assert all(agree(page, new, tag) for new in good)
    assert not any(agree(page, new, tag) for new in bad)


def test_tolerances_of_a_cell_add_up_where_they_meet_and_stay_apart_where_they_do_not():
    tags = ("atol=0.1", "rtol=0.1", "atol=2%", "counts=3")
    assert agree("10.0 x 50% x 5", "11.1 x 52% x 8", *tags)
    for new in ("11.2 x 52% x 8", "11.1 x 53% x 8", "11.1 x 52% x 9"):
        assert not agree("10.0 x 50% x 5", new, *tags)


def test_text_stays_strict_and_padding_goes_only_where_digits_may():
    page, new = "name    ----- 9.98 dB", "name   ------ 10.02 dB"
    assert agree(page, new, "atol=0.1")
    assert not agree(page, new.replace("name", "Name"), "atol=0.1")
    assert not agree(page, page.replace("dB", "dB\n"), "atol=0.1")
    assert not agree("a  b", "a b")
    assert agree("( 9.9, 1)", "(10.0, 1)", "atol=0.1")


def test_another_order_of_lines_needs_its_tag_and_keeps_every_line():
    page, new = "one 1.5\ntwo 1.6\nend", "two 1.5\none 1.6\nend"
    assert agree(page, new, "atol=0.1", "any-order")
    assert not agree(page, new, "atol=0.1")
    assert not agree(page, new, "any-order")
    assert not agree(page, "two 1.6\ntwo 1.6\nend", "atol=0.1", "any-order")
    assert not agree(page, "two 1.6\none 1.5", "atol=0.1", "any-order")
    assert not agree(page, "two 1.6\none 1.5\nend\nend", "atol=0.1", "any-order")


def test_times_are_free_and_the_words_around_them_are_not():
    assert agree("float 21.1 ms in 80 rounds", "float 9.1 ms in 100 rounds", "times")
    assert not agree("float 21.1 ms", "float 21.1 s", "times")
    assert not agree("float 21.1 ms", "float 21.1 ms, int8 3 ms", "times")


def test_a_difference_is_told_with_the_two_numbers_and_the_limit():
    assert settle("24.3 dB, 5", "24.9 dB, 6", Tolerance.of(["atol=0.5dB"]))[1] == [
        "the page says 24.3 dB, the new run 24.9; allowed: 0.5",
        "the page says 5, the new run 6; allowed: nothing",
    ]
    assert settle("24.3 dB", "24.4 dB", Tolerance())[1] == [
        "the page says 24.3 dB, the new run 24.4; allowed: nothing"
    ]


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("rtol", "write rtol=0.02"),
        ("atol=", "write rtol=0.02"),
        ("atol=-1", "write rtol=0.02"),
        ("atol=nan", "write rtol=0.02"),
        ("rtol=5 %", "write rtol=0.02"),
        ("atol=0", "above 0"),
        ("rtol=1", "nearly everything"),
        ("counts=0.5", "whole number"),
        ("last=0.5dB", "whole number"),
        ("counts=2dB", "takes no unit but %; atol=2dB"),
    ],
)
def test_a_tag_that_is_no_tolerance_is_refused(tag: str, message: str):
    with pytest.raises(BadTag, match=message):
        Tolerance.of([tag])


@pytest.mark.parametrize("tag", ["atol=1", "counts=1", "any-order"])
def test_times_stand_alone(tag: str):
    with pytest.raises(BadTag, match="print the other numbers"):
        Tolerance.of([tag, "times"])


def test_other_tags_state_nothing():
    assert Tolerance.of(["hide-input", "whole-program"]).strict


def test_numbers_are_counted_by_how_they_are_compared():
    text = "24.3 dB, 96%, 7 of 9, 0.5"
    assert counted(text, Tolerance()) == {"equal": 5}
    assert counted(text, Tolerance.of(["atol=0.1dB"])) == {"equal": 4, "within": 1}
    assert counted(text, Tolerance.of(["atol=0.1", "counts=1"])) == {"within": 5}
    assert counted(text, Tolerance.of(["times"])) == {"times": 5}


def test_a_tolerance_for_nothing_is_seen():
    stated = Tolerance.of(["atol=0.1dB", "rtol=0.1", "counts=2", "atol=1%"])
    assert unused("7 of 9 in 5%", stated) == ["absolute for dB", "relative for decimals"]
    assert unused("1.5 dB", stated) == ["absolute for %", "counts"]
