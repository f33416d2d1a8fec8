"""Pages without formulas do without MathJax, parts of the contents have names, Colab gets notebooks that install."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def without_mathjax(
    app: Sphinx,
    name: str,
    _: str,
    context: dict[str, Any],
    document: nodes.document | None,
) -> None:
    """Take MathJax, 1.3 MB, from a page without formulas: Sphinx gives it to each page whose children have some."""
    formulas = document is not None and any(
        document.findall(lambda n: isinstance(n, nodes.math | nodes.math_block))
    )
    if not formulas:
        context["script_files"] = [
            s for s in context["script_files"] if "mathjax" not in str(s.filename)
        ]


def with_names(
    _app: Sphinx,
    _name: str,
    _template: str,
    context: dict[str, Any],
    _document: object,
) -> None:
    """Name the arrows in the contents, which have no words, and let folds be called what they say."""
    if "generate_toctree_html" in context:
        made = context["generate_toctree_html"]
        named = '<summary aria-label="Pages of this part">'
        context["generate_toctree_html"] = lambda *args, **options: str(
            made(*args, **options)
        ).replace("<summary>", named)
    # A fold says "Show code cell source"; its label hid that from who hears or says it.
    label = ' aria-label="Toggle hidden content"'
    body = context.get("body", "").replace(label, "")
    # Entries of the bibliography are in a list, and their own role, now deprecated, may not be in one.
    context["body"] = body.replace('role="doc-biblioentry"', 'role="listitem"')


def on_colab(
    app: Sphinx,
    _name: str,
    _template: str,
    context: dict[str, Any],
    _document: object,
) -> None:
    """Lead the Colab button to the notebook that installs what it imports (scripts/colab.py)."""
    ours = f"/blob/{app.config.html_theme_options['repository_branch']}/"
    for group in context.get("header_buttons", []):
        for button in group.get("buttons", []):
            if button.get("text") == "Colab":
                button["url"] = button["url"].replace(ours, "/blob/colab/")


def setup(app: Sphinx) -> dict[str, bool]:
    """After Sphinx's own handlers and the theme's."""
    app.connect("html-page-context", without_mathjax, priority=900)
    app.connect("html-page-context", with_names, priority=900)
    app.connect("html-page-context", on_colab, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
