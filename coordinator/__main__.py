"""`python -m coordinator`: the same as the console script."""

from write_coordinator_start import main

main()
