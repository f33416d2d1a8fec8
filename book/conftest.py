"""Under `pytest --nbval`, the chapters' printed numbers are compared within the tolerances that their cells state."""

from tests.site.nbnumbers import pytest_collect_file, pytest_terminal_summary

__all__ = ["pytest_collect_file", "pytest_terminal_summary"]
