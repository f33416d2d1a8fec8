"""`python -m eightbit.cli` is `eightbit`."""

from eightbit.cli import main

main()
