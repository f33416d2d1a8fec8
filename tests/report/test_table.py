"""Tables as text and as HTML."""

from eightbit.report.table import NOTE_WIDTH, Table

TABLE = Table("Sizes", ("name", "bytes>"), (("a<b", "1,000"), ("long name", "7")), "a note " * 30)


def test_text_is_aligned_and_its_note_broken():
    lines = str(TABLE).splitlines()
    assert lines[:5] == [
        "Sizes",
        "  name       bytes",
        "  ---------  -----",
        "  a<b        1,000",
        "  long name      7",
    ]
    note = lines[5:]
    assert len(note) > 1
    assert all(line.startswith(("  a ", "  note")) for line in note)
    assert max(map(len, note)) <= NOTE_WIDTH
    assert " ".join(note).split() == TABLE.note.split()


def test_html_is_escaped():
    assert "<td>a&lt;b</td>" in TABLE.html()
    assert '<td style="text-align:right">1,000</td>' in TABLE.html()


def test_titles_columns_and_notes_are_escaped_too():
    html = Table("<i>title", ("<b>column", "n>"), (("x", "1"),), "<u>note").html()
    assert "<caption>&lt;i&gt;title</caption>" in html
    assert "&lt;b&gt;column</th>" in html
    assert "<p>&lt;u&gt;note</p>" in html
