"""Checkers of C find nothing in a network but the deviations that are listed, and find what is put there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from eightbit.arith.fixedpoint import Arithmetic
from eightbit.deploy.c.folder import write_c
from tests.deploy.checkers import CHECKERS, findings
from tests.deploy.programs import random_program

FAULT = """
int wrong(int x);
int wrong(int x) {
    int y;
    if (x = 2) x++;
    return sizeof(x) + y;
}
"""


@pytest.mark.parametrize("checker", CHECKERS)
@pytest.mark.parametrize("arithmetic", [Arithmetic.TFLITE, Arithmetic.SINGLE])
def test_no_rule_is_broken(
    checker: str, arithmetic: Arithmetic, tmp_path: Path, tool: Callable[[str], str]
) -> None:
    """Every kernel is in the header that is checked; the calls are those of a random program."""
    write_c(random_program(11, 8), tmp_path, arithmetic)
    assert findings(checker, tmp_path, tool) == {}
    with (tmp_path / "net.c").open("a") as file:
        file.write(FAULT)
    assert len(findings(checker, tmp_path, tool)) > 1
