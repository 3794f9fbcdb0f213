"""`python -m batchemo`."""

from batchemo.cli.main import main

if __name__ == "__main__":  # worker processes import it, too
    main()
