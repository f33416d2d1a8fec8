"""Names of a model as identifiers of C: letters, digits and underscores, each one used once."""

from __future__ import annotations

import re

RESERVED = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "_Bool",
        "_Complex",
        "_Imaginary",
        "main",
        "arena",
    ]
)
LONGEST = 48
"""C99 tells apart 63 characters of a name inside a file; some are added to ours."""


class Identifiers:
    """Hands out an identifier for each name, always the same one for the same name."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}
        self._used: set[str] = set()

    def __call__(self, name: str) -> str:
        """The identifier of `name`: what C cannot say becomes an underscore, a number tells equal ones apart.

        >>> ids = Identifiers()
        >>> ids("stem.2"), ids("stem/2"), ids("stem.2"), ids("2x"), ids("int")
        ('stem_2', 'stem_2_2', 'stem_2', 'n2x', 'n_int')
        """
        if name not in self._given:
            plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:LONGEST].rstrip("_") or "n"
            plain = f"n{plain}" if plain[0].isdigit() else plain
            plain = f"n_{plain}" if plain in RESERVED else plain
            found, number = plain, 1
            while found in self._used:
                number += 1
                found = f"{plain}_{number}"
            self._given[name] = found
            self._used.add(found)
        return self._given[name]
