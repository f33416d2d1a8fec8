"""MISRA C:2012 and clang-tidy over a network in C: what they find, and the rules it departs from, with the reasons.

The kernels are checked as any compiler reads them, without a processor's own instructions.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

TIDY = "-*,bugprone-*,cert-*,misc-*,clang-analyzer-*"
CHECKERS = {
    "cppcheck": (
        *("--std=c99", "--enable=warning,style,performance,portability", "--addon=misra", "--max-configs=1"),
        *("--quiet", "-DEB_PLAIN", "--template={file}:{line}: [{id}]"),
    ),
    "clang-tidy": ("--quiet", "--header-filter=eb_.*|net.h", f"-checks={TIDY}"),
}
DEVIATIONS = {
    "misra-c2012-2.2": "the first tensor of the arena is written `net_arena + 0`, as the others are",
    "misra-c2012-2.3": "a type that nobody uses stops compilers whose shifts do not repeat the sign",
    "misra-c2012-2.5": "macros that only some processors' kernels use, and numbers of net.h that the caller uses",
    "misra-c2012-8.9": "constants stand before the calls that read them, not among them",
    "misra-c2012-10.1": "right shifts of negative numbers are the rounding itself; the sign repeats, which is checked",
    "misra-c2012-10.3": "zero points and codes fit 8 bits by construction; what may not fit is saturated first",
    "misra-c2012-10.8": "a sum of products in int32 is read as the length of memory, which is not negative",
    "misra-c2012-12.1": "advisory: of precedence only that of school is relied upon, and of shifts",
    "misra-c2012-12.3": "advisory: names of one type are declared together; loops step several pointers",
    "misra-c2012-13.3": "advisory: `*y++ =` writes from front to back",
    "misra-c2012-14.2": "a loop that normalizes a number counts its steps",
    "misra-c2012-15.5": "advisory: the usual case first, and out",
    "misra-c2012-17.8": "advisory: pointers that are handed in walk over the codes",
    "misra-c2012-18.4": "advisory: addresses are tensor + offset",
    "misra-c2012-20.1": "kernels for a processor replace some in the middle of the header",
    "misra-c2012-20.7": "a macro that makes functions takes names, which cannot stand in parentheses",
    "misra-c2012-20.10": "advisory: sums in registers are named by number (eb_avx512.h)",
    "shiftTooManyBitsSigned": "a shift by 31 repeats the sign, as the other right shifts",
    "bugprone-easily-swappable-parameters": "lengths are int32_t, all of them",
    "bugprone-implicit-widening-of-multiplication-result": "offsets within a tensor, which has fewer than 2^31 codes",
}
"""Rules that the C departs from, with the reason; all others hold."""


def findings(checker: str, folder: Path, tool: Callable[[str], str]) -> dict[str, list[str]]:
    """Where the network of `folder` breaks a rule that is no deviation: `file:line` by rule."""
    ends = ("--", "-std=c99", "-DEB_PLAIN") if checker == "clang-tidy" else ()
    command = [tool(checker), *CHECKERS[checker], "net.c", *ends]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found: dict[str, list[str]] = {}
    for line in (done.stdout + done.stderr).splitlines():
        place, bracket, rules = line.rpartition(" [")
        for rule in rules.rstrip("]").split(",") if bracket and line.endswith("]") else ():
            if rule not in DEVIATIONS:
                found.setdefault(rule, []).append(Path(place.split(": ")[0]).name)
    return found
