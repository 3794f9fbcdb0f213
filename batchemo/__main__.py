"""`python -m batchemo`."""

from batchemo.cli import main

main()
