"""GPUs that are claimed, by locks alone: none is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from batchemo.devices import claim

CLAIM = """
import sys
from pathlib import Path
from batchemo.devices import claim
print(claim(2, folder=Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


def worker(folder: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", CLAIM, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_each_worker_has_a_device_of_its_own_until_it_dies(tmp_path: Path) -> None:
    workers = [worker(tmp_path / "locks") for _ in range(2)]
    try:
        assert [index for _, index in workers] == [0, 1]
        assert claim(2, folder=tmp_path / "locks") in {0, 1}  # shared: none is free
        workers[0][0].kill()
        workers[0][0].wait(10)
        workers.append(worker(tmp_path / "locks"))
        assert workers[2][1] == 0
    finally:
        for process, _ in workers:
            process.kill()
            process.communicate()
