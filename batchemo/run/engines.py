"""Which engine a run takes. Another one is a module like `dask_engine` and a line here."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from batchemo.errors import UsageError
from batchemo.options import RunOptions
from batchemo.records import Medium
from batchemo.run.local import Engine, choose_engine


def check_engine(options: RunOptions) -> None:
    """Raises UsageError where the engine that is asked for is not to be had."""
    if options.engine == "dask" and importlib.util.find_spec("distributed") is None:
        raise UsageError("--engine dask needs Dask; install it with: pip install 'batchemo[dask]'")
    if options.scheduler is not None and options.engine != "dask":
        raise UsageError(f"--scheduler {options.scheduler} is for --engine dask; give both")


def make_engine(options: RunOptions, media: Sequence[Medium]) -> Engine:
    if options.engine == "local":
        return choose_engine(
            options.workers, media, device=options.device, timeout_s=options.timeout_s, max_memory_mb=options.max_memory_mb
        )
    from batchemo.run.dask import DaskEngine  # noqa: PLC0415 (may be missing)

    return DaskEngine(
        options.scheduler,
        workers=options.workers,
        device=options.device,
        timeout_s=options.timeout_s,
        max_memory_mb=options.max_memory_mb,
    )
