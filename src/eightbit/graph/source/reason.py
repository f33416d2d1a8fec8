"""What an exporter's long message says went wrong, in one line."""

from __future__ import annotations

import re
from pathlib import Path

LONGEST = 400
"""Characters of a reason: exporters print whole tensors and stacks, and the point comes before them."""
SHORT = 60
SEE = "See the stack trace for more information."
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
PREFACE = re.compile(r"Exception encountered when calling .*")  # Keras; the layer's own message comes next
PLACE = re.compile(r'File "([^"\n]+)", line (\d+), in \S+\n\s*(\S.*)')


def reason(cause: BaseException) -> str:
    """The first paragraph with something to say of the innermost cause, and the line of the model's code it names.

    What surrounds the innermost cause is said before it where that alone is but a few words.
    """
    chain = [cause]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    text = ESCAPES.sub("", str(chain[-1])).strip()
    said = _point(chain[-1])
    if len(chain) > 2 and len(said) < SHORT:
        said = f"{_point(chain[-2]).removesuffix(SEE).rstrip('. ')}: {said}"
    if len(said) > LONGEST:
        said = f"{said[:LONGEST].rsplit(' ', 1)[0]} ..."
    places = PLACE.findall(text)
    if places and places[-1][2].strip() not in said:
        file, line, code = places[-1]
        said += f" (at `{code.strip()}`, line {line} of {Path(file).name})"
    return said


def _point(cause: BaseException) -> str:
    """The first paragraph of a message that is no preface, with the next one where it ends in a colon."""
    paragraphs = re.split(r"\n\s*\n", ESCAPES.sub("", str(cause)).strip())
    lines = [line for part in paragraphs if (line := " ".join(part.split())) and not PREFACE.fullmatch(line)]
    if not lines:
        return type(cause).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
