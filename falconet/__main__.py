"""Runs the command line: `python -m falconet`."""

from falconet.cli import main

main()
