"""`python -m training`."""

import os

from training.cli import main

if __name__ == "__main__":
    # OpenMP reads it when torch is imported. Threads that spin while they wait make an epoch several times longer on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
