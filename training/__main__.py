"""`python -m training`."""

import os

from training.cli import main

if __name__ == "__main__":
    # Read when torch is first imported, which the commands do. Threads that spin while they wait make an epoch several
    # times longer as soon as anything else wants a core.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
