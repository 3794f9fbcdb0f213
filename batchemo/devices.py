"""Where networks run: the CPU or a CUDA device."""

from __future__ import annotations

import re

import torch

from batchemo.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:N` -> torch's device. Raises DeviceError where it does not exist here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise DeviceError(f"no device {name!r}; choose --device auto, cpu, cuda or cuda:N")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"--device {name}: this machine has {count} usable CUDA devices; try --device cpu, or look with: batchemo doctor"
            )
    return device
