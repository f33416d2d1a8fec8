"""The one family of exceptions: catch `EightbitError` to catch them all.

A message names the tensor or node, the value found, and what to do about it. Names come from strangers' files, so a
message holds nothing that would command a terminal.
"""


def printable(text: str) -> str:
    r"""`text` with every character that does not show itself written as an escape; line feeds stay.

    >>> print(printable("conv\x1b[2J"))
    conv\x1b[2J
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode("ascii") for c in text
    )


class EightbitError(Exception):
    """Base of every error this package raises on purpose."""

    def __str__(self) -> str:
        return printable(super().__str__())


class LoadError(EightbitError):
    """A model or file could not be read as a float graph."""


class CalibrationError(EightbitError):
    """Calibration data are empty, mis-shaped, misnamed or not finite."""


class UnsupportedOp(EightbitError):
    """A graph holds nodes that a stage cannot process; all offenders are listed at once."""


class QuantizationError(EightbitError):
    """A recipe or a range cannot be turned into codes."""


class EngineError(EightbitError):
    """An engine was given a wrong input, or could not run the model."""


class ExportError(EightbitError):
    """An artefact could not be written."""


class MissingExtra(EightbitError):
    """An optional dependency is not installed; the message names the extra to install."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed; run: pip install 'eightbit[{extra}]'")
        self.package = package
        self.extra = extra
