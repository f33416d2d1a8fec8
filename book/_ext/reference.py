"""What stands before the first colon of an attribute's docstring is a part of its sentence, and no type.

In: docstrings and signatures, as autodoc found them. Napoleon takes `The number of samples: all of them` for an
attribute of type "The number of samples"; types stand in the annotations here. A field with a factory shows dots, and a
class that is not called (an enumeration, a protocol) no arguments. A constant shows its value where that can be read.
"""

from __future__ import annotations

import re
from enum import EnumType

from sphinx.application import Sphinx
from sphinx.ext.autodoc import DataDocumenter
from sphinx.ext.napoleon import GoogleDocstring
from sphinx.util.inspect import object_description

PRINTED = re.compile(r"<(?:[^<>]|<[^<>]*>)*>")
"""What Python prints of an object that has no literal; a function's may name a `<lambda>`."""
READABLE = 160
"""Letters of a value, two lines of a page. Tables of functions have thousands."""


def whole(self: GoogleDocstring) -> tuple[str, list[str]]:
    """No type, and the docstring of an attribute as it stands."""
    first = self._lines.next()
    lines = [first, *self._dedent(self._consume_to_end())]
    return "", self.__class__(lines, self._config).lines()


def as_called(*event: object) -> tuple[str | None, object] | None:
    """A signature with dots for what is printed in angle brackets; none where it is not the class's own."""
    found, signature, returned = event[3], *event[-2:]
    if isinstance(found, EnumType) or getattr(found, "_is_protocol", False):
        return "", returned
    if not isinstance(signature, str) or not PRINTED.search(signature):
        return None
    return PRINTED.sub("...", signature), returned


class Constant(DataDocumenter):
    """A constant of a module, without a value that is long or holds what Python prints in angle brackets."""

    def should_suppress_value_header(self) -> bool:
        """Whether the value is left out."""
        value = object_description(self.object)
        return (
            len(value) > READABLE
            or "<" in value
            or super().should_suppress_value_header()
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Take Napoleon's place for attributes, and look at signatures and values."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_autodocumenter(Constant, override=True)
    GoogleDocstring._consume_inline_attribute = whole
    app.connect("autodoc-process-signature", as_called)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
