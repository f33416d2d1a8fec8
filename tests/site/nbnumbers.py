"""A pytest plugin beside nbval: a printed number is compared within the tolerance that its cell states.

nbval knows two ways, equal or ignored. Here a cell's tags say how far each kind of number may be from the page's
(see `numbers`); all else about running and comparing is nbval's. A cell tagged `needs=` and the name of a program or an
engine is run everywhere, and compared where that is installed: elsewhere it skips, and fails where CI is set.
`book/conftest.py` switches it on, so it is used wherever pytest runs a chapter with `--nbval`. At the end pytest says
how many numbers were compared.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat import from_dict
from nbval.plugin import IPyNbCell, IPyNbFile

from tests import tools
from tests.site.notebooks import draws, needs, printed, tags
from tests.site.numbers import BadTag, Tolerance, counted, settle

PROPERTY = "printed numbers"


def texts(outputs: list[Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(what nbval compares it as, the dictionary that holds it, its key there) of each text among outputs."""
    for output in outputs:
        if output["output_type"] == "stream":
            yield output["name"], output, "text"
        for kind in output.get("data", {}):
            if kind.startswith("text/"):
                yield kind, output["data"], kind


def without_sizes(outputs: list[Any]) -> list[Any]:
    """Outputs in which a figure is its picture alone, as on the page: `<Figure size 660x396 …>` is printed nowhere."""
    return [
        from_dict({**output, "data": {**output["data"], "text/plain": "a figure"}})
        if draws({"outputs": [output]})
        else output
        for output in outputs
    ]


class NumberedCell(IPyNbCell):
    """A cell whose numbers are compared within its tolerance."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            self.tolerance = Tolerance.of(self.cell.metadata.get("tags", []))
        except BadTag as error:
            raise pytest.Collector.CollectError(f"cell {self.cell_num}, tag {error}") from None

    def compare_outputs(self, test: list[Any], ref: list[Any], skip_compare: Any = None) -> bool:
        """nbval's, after accepted numbers are set to the page's; none without the tools that the cell needs."""
        for name in needs(tags(self.cell)):
            tools.need(name)
        test, ref = without_sizes(test), without_sizes(ref)
        pages: dict[str, list[str]] = defaultdict(list)
        for name, holder, key in texts(ref):
            pages[name].append(holder[key])
        faults = []
        for name, holder, key in texts(test):
            if pages[name]:
                holder[key], more = settle(pages[name].pop(0), holder[key], self.tolerance)
                faults += more
        same = super().compare_outputs(test, ref, skip_compare)
        if not same:
            self.comparison_traceback[:0] = faults
        return same

    def runtest(self) -> None:
        """nbval's test; the count of numbers goes with the report, to the process that sums up."""
        counts = counted(printed(self.cell), self.tolerance)  # before nbval joins the cell's streams in place
        super().runtest()
        if self.options["check"] and self.cell.execution_count is not None:
            self.user_properties.append((PROPERTY, dict(counts)))


class NumberedFile(IPyNbFile):
    """A notebook of such cells."""

    def collect(self) -> Iterator[NumberedCell]:
        """nbval's cells, with the numbers."""
        for cell in super().collect():
            yield NumberedCell.from_parent(
                self, name=cell.name, cell_num=cell.cell_num, cell=cell.cell, options=cell.options
            )


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> Iterator[None]:
    """Takes the place of nbval's notebook."""
    found = yield
    return [
        NumberedFile.from_parent(parent, path=file_path) if type(node) is IPyNbFile else node
        for node in found
    ]


def summary(counts: Counter[str]) -> str:
    """One line: how many printed numbers were compared, and how."""
    compared = counts["equal"] + counts["within"]
    return (
        f"printed numbers: {compared:,} compared ({counts['equal']:,} equal, {counts['within']:,} within the "
        f"tolerance of their cell), {counts['times']:,} times of a machine, marked as such"
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the count over all cells that passed."""
    reports = terminalreporter.getreports("passed")
    properties = [dict(report.user_properties) for report in reports if report.when == "call"]
    counts = sum((Counter(p[PROPERTY]) for p in properties if PROPERTY in p), Counter())
    if counts:
        terminalreporter.line(summary(counts))
