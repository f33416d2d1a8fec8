"""What stands before the first colon of an attribute's docstring is a part of its sentence, and no type.

In: docstrings and signatures, as autodoc found them. Napoleon takes `The number of samples: all of them` for an
attribute of type "The number of samples"; types stand in the annotations here. A field with a factory shows dots, and a
class that is not called (an enumeration, a protocol) no arguments.
"""

from __future__ import annotations

from enum import EnumType

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring


def whole(self: GoogleDocstring) -> tuple[str, list[str]]:
    """No type, and the docstring of an attribute as it stands."""
    first = self._lines.next()
    lines = [first, *self._dedent(self._consume_to_end())]
    return "", self.__class__(lines, self._config).lines()


def as_called(*event: object) -> tuple[str | None, object] | None:
    """A signature with dots for what dataclasses print as `<factory>`; none where it is not the class's own."""
    found, signature, returned = event[3], *event[-2:]
    if isinstance(found, EnumType) or getattr(found, "_is_protocol", False):
        return "", returned
    if not isinstance(signature, str) or "<factory>" not in signature:
        return None
    return signature.replace("<factory>", "..."), returned


def setup(app: Sphinx) -> dict[str, bool]:
    """Take Napoleon's place for attributes, and look at signatures."""
    app.setup_extension("sphinx.ext.autodoc")
    GoogleDocstring._consume_inline_attribute = whole
    app.connect("autodoc-process-signature", as_called)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
