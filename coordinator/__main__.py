"""`python -m coordinator`: the same as the console script."""

from coordinator.cli import main

main()
