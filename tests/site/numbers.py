"""The numbers of a printed text, and whether a second text says the same within what a cell's tags allow.

In: the text that a page shows, the text of a new run, the tags of the cell. Out: the new text with every accepted
number and layout replaced by the page's, so that an ordinary comparison of strings decides and shows what is left.

Without tags nothing may differ. A tag says by how much a number may:

- `rtol=0.02`, `atol=0.3`: numbers with a decimal point (or an exponent), relative or in units as printed;
- `last=4`: the same, in units of the last digit that the page shows (0.3739 may be 0.3743, and 35.5 may be 35.9);
- `atol=0.3dB`, `atol=2%`, `rtol=0.1pictures`: numbers followed by this unit or word, whole ones too;
- `counts=2`, `counts=0.001%`: whole numbers, by so many or by a share of them (bytes of a file that holds names);
- `any-order`: the lines may come in another order (rows sorted by a measured value);
- `times`: every number is a time of the machine that printed it, and only the text is compared.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_DOWN, Decimal

# A digit inside a word (int8, blocks.0.add, 3x3) is text. A sign counts where no word or number stands before it.
NUMBER = re.compile(r"((?<![\w.])(?:(?<!\w)[+−-])?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?)")
UNIT = re.compile(r" ?(%|[^\W\d_]\w*)")
LIMIT = re.compile(r"(atol|rtol|last|counts)=(\d+(?:\.\d+)?(?:e-?\d+)?)(%|(?:[^\W\d_]\w*)?)")


class BadTag(ValueError):
    """A tag that looks like a tolerance and is none."""


@dataclass(frozen=True)
class Tolerance:
    """By how much the numbers of a cell may differ; the default is not at all.

    `absolute`, `relative` and `last` go from a unit ("" for decimals without a unit of their own) to a bound; `counts`
    has one for "" (so many) and one for "%" (a share).
    """

    absolute: Mapping[str, Decimal] = field(default_factory=dict)
    relative: Mapping[str, Decimal] = field(default_factory=dict)
    last: Mapping[str, Decimal] = field(default_factory=dict)
    counts: Mapping[str, Decimal] = field(default_factory=dict)
    any_order: bool = False
    times: bool = False

    @classmethod
    def of(cls, tags: Iterable[str]) -> "Tolerance":
        """The tolerance that a cell's tags state; BadTag for one that cannot be read."""
        bounds: dict[str, dict[str, Decimal]] = {"atol": {}, "rtol": {}, "last": {}, "counts": {}}
        tags = set(tags)
        for tag in sorted(tags):
            if re.match(r"(atol|rtol|last|counts)\b", tag):
                kind, unit, bound = _limit(tag)
                bounds[kind][unit] = bound
        found = cls(
            bounds["atol"],
            bounds["rtol"],
            bounds["last"],
            bounds["counts"],
            "any-order" in tags,
            "times" in tags,
        )
        if found.times and (found.any_order or any(bounds.values())):
            raise BadTag(
                "times: a cell of times has no other tolerance; print the other numbers in a cell before it"
            )
        return found

    @property
    def strict(self) -> bool:
        """Whether nothing at all may differ."""
        return self == Tolerance()

    def allowed(self, expected: "Number", decimal: bool) -> Decimal | None:
        """The largest difference from an expected number, None without limit."""
        if self.times:
            return None
        unit = expected.unit if expected.unit in {*self.absolute, *self.relative, *self.last} else ""
        if not unit and not decimal:
            share = self.counts.get("%", Decimal(0)) / 100
            return self.counts.get("", Decimal(0)) + (share * abs(expected.value)).to_integral_value(
                ROUND_DOWN
            )
        absolute, relative, last = (
            kind.get(unit, Decimal(0)) for kind in (self.absolute, self.relative, self.last)
        )
        return absolute + relative * abs(expected.value) + last * expected.step


def _limit(tag: str) -> tuple[str, str, Decimal]:
    match = LIMIT.fullmatch(tag)
    if match is None:
        raise BadTag(f"{tag}: write rtol=0.02, atol=0.3, atol=0.3dB, last=1 or counts=2")
    kind, value, unit = match[1], Decimal(match[2]), match[3]
    if value == 0:
        raise BadTag(f"{tag}: the bound is a number above 0; without a tag nothing may differ")
    if kind == "rtol" and value >= 1:
        raise BadTag(f"{tag}: a relative tolerance of 1 and more accepts nearly everything")
    if kind in ("last", "counts") and value % 1 and not (kind == "counts" and unit == "%"):
        raise BadTag(f"{tag}: {kind} takes a whole number")
    if kind == "counts" and unit not in ("", "%"):
        raise BadTag(f"{tag}: counts takes no unit but %; atol={value}{unit} is for numbers before this word")
    return kind, unit, value


@dataclass(frozen=True)
class Number:
    """A number as printed, and the unit or word that follows it."""

    text: str
    unit: str

    @property
    def value(self) -> Decimal:
        """What it says."""
        return Decimal(self.text.replace(",", "").replace("−", "-"))

    @property
    def step(self) -> Decimal:
        """One unit of its last digit."""
        return Decimal(1).scaleb(self.value.as_tuple().exponent)

    @property
    def decimal(self) -> bool:
        """Whether it has a decimal point or an exponent; if not, it counts something."""
        return not re.fullmatch(r"[+−-]?[\d,]+", self.text)


def split(text: str) -> tuple[list[str], list[Number]]:
    """The pieces of text around the numbers, one more than there are numbers, and the numbers."""
    parts = NUMBER.split(text)
    pieces, found = parts[::2], parts[1::2]
    units = (UNIT.match(after) for after in pieces[1:])
    return pieces, [Number(n, unit[1] if unit else "") for n, unit in zip(found, units, strict=True)]


def settle(page: str, new: str, tolerance: Tolerance) -> tuple[str, list[str]]:
    """The new text with all that is accepted set to what the page says, and a line for each number that is not."""
    if tolerance.any_order:
        new = _ordered(page, new, tolerance)
    return _differences(page, new, tolerance)


def _differences(page: str, new: str, tolerance: Tolerance) -> tuple[str, list[str]]:
    (pieces, expected), (new_pieces, found) = split(page), split(new)
    layout = list if tolerance.strict else _plain
    if layout(pieces) != layout(new_pieces):
        return new, ["the text between the numbers differs"]
    faults, settled = [], [pieces[0]]
    for number, other, piece in zip(expected, found, pieces[1:], strict=True):
        limit = tolerance.allowed(number, number.decimal or other.decimal)
        good = number.text == other.text or limit is None or 0 < limit >= abs(number.value - other.value)
        settled += [number.text if good else other.text, piece]
        if not good:
            unit = f" {number.unit}".rstrip()
            faults.append(
                f"the page says {number.text}{unit}, the new run {other.text}; allowed: {limit or 'nothing'}"
            )
    return "".join(settled), faults


def _plain(pieces: list[str]) -> list[str]:
    """Pieces without what depends on the width of a number: padding, and rules of dashes."""
    return [re.sub(r" *\n *", "\n", re.sub(r" +", " ", re.sub(r"-{2,}", "--", p))).strip(" ") for p in pieces]


def _ordered(page: str, new: str, tolerance: Tolerance) -> str:
    """The new lines in the order of the page's, each beside the first that it agrees with; the rest at the end."""
    left, placed = new.splitlines(keepends=True), []
    for line in page.splitlines(keepends=True):
        match = next((other for other in left if not _differences(line, other, tolerance)[1]), None)
        if match is not None:
            left.remove(match)
            placed.append(match)
    return "".join(placed + left)


def counted(page: str, tolerance: Tolerance) -> Counter[str]:
    """How many numbers of a text are compared as `equal`, `within` a tolerance, or not at all, as `times`."""
    limits = [tolerance.allowed(number, number.decimal) for number in split(page)[1]]
    return Counter("times" if limit is None else "within" if limit else "equal" for limit in limits)


def unused(page: str, tolerance: Tolerance) -> list[str]:
    """The bounds that no number of the text comes under."""
    numbers = split(page)[1]
    units = {n.unit for n in numbers} | {"" for n in numbers if n.decimal}
    stated = [(kind, unit) for kind in ("absolute", "relative", "last") for unit in getattr(tolerance, kind)]
    idle = [f"{kind} for {unit or 'decimals'}" for kind, unit in stated if unit not in units]
    return idle + ["counts"] * bool(tolerance.counts and all(n.decimal for n in numbers))
