"""The command line: the same words as the package, on files.

Models are files. Data are `.npz` files whose keys are the models' input names (labels under `labels`), or folders of
pictures. Exit status: 0, or 1 where the work failed (one line on stderr says why), or 2 where the command was misused.
"""

from eightbit.cli import bench, certify, compare, export, inspect, lint, prune, quantize, run, tune
from eightbit.cli.group import main

__all__ = [
    "bench",
    "certify",
    "compare",
    "export",
    "inspect",
    "lint",
    "main",
    "prune",
    "quantize",
    "run",
    "tune",
]
