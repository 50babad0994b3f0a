"""Lets `python -m cpost` do what `cpost` does."""

from cpost.cli import main

main()
