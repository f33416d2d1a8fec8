"""Lint's predictions on the graphs made for it, against the runtimes that are on this machine.

What saturates without VNNI is seen in an emulator, where there is one.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import eightbit as eb
from benchmarks.figure import Figure
from eightbit.report.lint import IN_FLOAT, REFUSED, SATURATES, TARGETS
from tests.report.lint_graphs import CASES
from tests.report.lint_happens import in_float, is_refused

KINDS = (SATURATES, IN_FLOAT, REFUSED)
ROOT = Path(__file__).parents[1]


def rows() -> Iterator[Figure]:
    """For each target: predictions that did not happen, and what happened that was not predicted."""
    seen = _saturated()
    models = [(case, case.build()[0]) for case in CASES]
    for target in TARGETS:
        wrong, said = 0, dict.fromkeys(KINDS, 0)
        for case, q in models:
            found = {kind: {f.node for f in eb.lint(q, target).findings if f.kind == kind} for kind in KINDS}
            happens = {
                SATURATES: seen[case.name]
                if seen and target == "x86-avx2"
                else case.named(SATURATES, target),
                IN_FLOAT: case.named(IN_FLOAT, target) if is_refused(q, target) else in_float(q, target),
                REFUSED: case.named(REFUSED, target),
            }
            wrong += sum(len(found[kind] ^ happens[kind]) for kind in KINDS)
            wrong += bool(found[REFUSED]) != is_refused(q, target)
            said = {kind: said[kind] + len(found[kind]) for kind in KINDS}
        detail = f"{len(models)} graphs; named: {', '.join(f'{n} {kind}' for kind, n in said.items())}"
        detail += "; saturation seen on an emulated Haswell" * bool(seen and target == "x86-avx2")
        yield Figure(f"lint for {target}: predictions that do not hold", wrong, 0, "", detail)


def _saturated() -> dict[str, set[str]]:
    """The layers of each graph that saturate on a processor with AVX2 and no VNNI; empty without an emulator."""
    emulator = shutil.which("qemu-x86_64")
    if emulator is None:
        return {}
    command = [emulator, "-cpu", "Haswell", sys.executable, "-m", "tests.report.lint_emulated"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {name: set(nodes) for name, nodes in json.loads(done.stdout).items()}
