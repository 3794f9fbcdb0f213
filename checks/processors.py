"""Runs the tests that are marked `processor` as each of the processors that this one can play.

`ATEN_CPU_CAPABILITY` limits torch's own kernels, `ONEDNN_MAX_CPU_ISA` those of oneDNN; so a machine with AVX-512, VNNI and bfloat16 finds
what goes wrong on one without. What may differ between processors, and by how much, is a table in ARCHITECTURE.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NamedTuple

import torch


class Processor(NamedTuple):
    """One kind of processor: values of the two variables, and the feature that a machine needs to play it."""

    aten: str
    onednn: str
    needs: str


PROCESSORS = (
    Processor("default", "AVX2", ""),
    Processor("avx2", "AVX2", "avx2"),
    Processor("avx512", "AVX512_CORE", "avx512_bw"),
    Processor("avx512", "AVX512_CORE_BF16", "avx512_bf16"),
)


def main() -> int:
    """The number of processors that a test failed on."""
    capabilities = torch.cpu.get_capabilities()
    failed = 0
    for processor in PROCESSORS:
        name = f"{processor.aten}, oneDNN {processor.onednn}"
        if processor.needs and not capabilities.get(processor.needs):
            print(f"== {name}: this machine has no {processor.needs}", flush=True)
            continue
        print(f"== {name}", flush=True)
        limits = {"ATEN_CPU_CAPABILITY": processor.aten, "ONEDNN_MAX_CPU_ISA": processor.onednn}
        command = [sys.executable, "-m", "pytest", "-q", "-m", "processor", *sys.argv[1:]]
        failed += subprocess.run(command, env={**os.environ, **limits}, check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
