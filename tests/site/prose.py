"""The numbers of the prose, and what each rests on: a cell, or a work that its sentence cites.

A number rests on a cell where one above it, one that it introduces, or one of a chapter that its sentence links to
has the number in its code or in what it printed, rounded to the digits of the prose. Equations and code are no
prose. What counts or names and measures nothing (four bits, chapter 5, the 255 of eight bits, a year) needs nothing
to rest on; a percentage and a number with a unit always do.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import groupby, pairwise
from typing import Any

from tests.site.notebooks import printed, source

Notebook = dict[str, Any]

NUMBER = re.compile(r"(?<![\w.,/#§–-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?![\w.]*\w|,\d)")
LITERAL = re.compile(r"(?<![A-Za-z_\d.])\d[\d_,]*(?:\.\d+)?(?:[eE][+-]?\d+)?")
UNIT = re.compile(r"(?:(?:,| and| or| to)\s+[\d.,]+)*\s*(%|(?:dB|points|[mnµ]?s|[kMG]B|[pnm]J|[kMG]?Hz)\b)")
SCALES = {"%": Decimal(100), "kB": Decimal("1e-3"), "MB": Decimal("1e-6"), "GB": Decimal("1e-9")}
NAMING = re.compile(r"(?:[Cc]hapters?|[Ff]igure|[Tt]able|Python|version|opset)\s+(?:\d+(?:,| and| to)\s+)*$")
CITATION = re.compile(r"\{cite(?::\w+)?\}`|\]\(http|<http")
CHAPTER = re.compile(r"\{doc\}`(?:[^`<]*<)?([^`>]*)>?`")
MARKED = re.compile(
    r"(\{(?:cite(?::\w+)?|doc)\}`[^`]*`|\]\(http[^)]*\)|<http[^>]*>)"  # kept; the rest is no prose:
    r"|```\{math\}.*?```|\$\$.*?\$\$|```(?:python|bash|sh|text|c|mermaid)\n.*?```"  # equations and code
    r"|^```[^\n]*$|^:[\w-]+:[^\n]*$"  # directives and their options
    r"|\{[\w:]+\}`[^`]*`|\$[^$]*\$|`[^`]*`|\]\([^)]*\)|<[^>]*>",
    re.DOTALL | re.MULTILINE,
)
PARAGRAPH = re.compile(r"\n\s*\n|\n(?=\s*[-*] )|\|\n")
SENTENCE = re.compile(rf"(?<=[.!?:;])\s+(?=\W*[A-Z\d{{*])|{PARAGRAPH.pattern}")
TEENS = ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
WORDS = {word: 13 + at for at, word in enumerate(TEENS)} | {
    f"{ten}-{one}" if one else ten: 10 * (2 + at) + unit
    for at, ten in enumerate(TENS)
    for unit, one in enumerate(["", *ONES])
}
WORD = re.compile(rf"\b(?:{'|'.join(sorted(WORDS, key=len, reverse=True))})\b", re.IGNORECASE)
COUNTED = 16
CODES = {2**bits + more for bits in range(33) for more in (-1, 0)}
YEARS = range(1900, 2100)


@dataclass(frozen=True)
class Claim:
    """A number of the prose: its text, the words around it, and whether "cell", "citation" or nothing ("") backs it."""

    number: str
    words: str
    rests_on: str


def claims(notebook: Notebook, chapters: Mapping[str, set[Decimal]]) -> Iterator[Claim]:
    """Every number of a chapter's prose; `chapters` has the numbers of every chapter's cells, by file name."""
    cells = notebook["cells"]
    kinds = [(kind, list(run)) for kind, run in groupby(cells, lambda cell: cell["cell_type"])]
    known: set[Decimal] = set()
    for (kind, run), (_, introduced) in pairwise([*kinds, ("", [])]):
        known |= numbers(run) | numbers(introduced)
        if kind == "markdown":
            for sentence in SENTENCE.split(prose("\n\n".join(source(cell) for cell in run))):
                yield from _claims(sentence, known, chapters)


def page_claims(text: str, chapters: Mapping[str, set[Decimal]]) -> Iterator[Claim]:
    """Every number of a page without cells, where a citation stands for its paragraph."""
    for paragraph in PARAGRAPH.split(prose(text)):
        yield from _claims(paragraph, set(), chapters)


def numbers(cells: list[dict[str, Any]]) -> set[Decimal]:
    """Those that the code and the printed outputs of cells hold."""
    code = (cell for cell in cells if cell["cell_type"] == "code")
    return {value(found) for cell in code for found in LITERAL.findall(f"{printed(cell)}\n{source(cell)}")}


def _claims(text: str, known: set[Decimal], chapters: Mapping[str, set[Decimal]]) -> Iterator[Claim]:
    known = known.union(*(chapters.get(name, set()) for name in CHAPTER.findall(text)))
    cited = CITATION.search(text)
    for match in measured(text):
        unit = UNIT.match(text, match.end())
        backed = "citation" if cited else "cell" if _in(known, match[0], unit[1] if unit else "") else ""
        words = text[max(0, match.start() - 60) : match.end() + 30]
        yield Claim(match[0], " ".join(words.split()), backed)


def prose(text: str) -> str:
    """A text without its equations and code, with its citations and links, and with digits for numbers in words."""
    kept = MARKED.sub(lambda match: match[1] or " ", text)
    return WORD.sub(lambda match: str(WORDS[match[0].lower()]), kept)


def measured(text: str) -> Iterator[re.Match[str]]:
    """The numbers of a text that say more than how many codes, which chapter or which year."""
    for match in NUMBER.finditer(text):
        whole = match[0].isdigit() and not UNIT.match(text, match.end())
        idle = whole and (int(match[0]) <= COUNTED or int(match[0]) in CODES or int(match[0]) in YEARS)
        if not idle and not NAMING.search(text, 0, match.start()):
            yield match


def value(number: str) -> Decimal:
    """What a number says."""
    return Decimal(re.sub("[_,]", "", number))


def _in(known: set[Decimal], number: str, unit: str) -> bool:
    """Whether a known number, as it is or turned into this unit, rounds to this one."""
    said = value(number)
    half = Decimal(1).scaleb(said.as_tuple().exponent) / 2
    return any(abs(said - scale * v) <= half for v in known for scale in (1, SCALES.get(unit, 1)))
