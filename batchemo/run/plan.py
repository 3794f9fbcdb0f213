"""Plans a run: which media are new or changed, which are done, and which have vanished."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.errors import UsageError
from batchemo.media.discover import SkippedFile, find_media
from batchemo.options import RunOptions, Shard
from batchemo.pipeline.context import RunContext
from batchemo.pipeline.resume import pending_work
from batchemo.records import MediaRow, Medium
from batchemo.results.blur_state import read_blur_state, with_folder_blur
from batchemo.results.catalog import MediumResults, is_vanished, read_catalog, read_media_rows

STAYS_BLURRED = "This results folder is blurred and stays so; to show faces again: --no-blur-faces"


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do.

    - `todo`: media to analyse; of those named in `redrawn` only the annotated copies and thumbnails are made again.
    - `done`: rows that are kept from earlier runs. `vanished`: rows of media that are not there any more.
    - `passed_over`: pictures in formats that are not supported.
    - `stays_blurred`: faces are hidden because the results folder is blurred.
    """

    todo: tuple[Medium, ...]
    done: tuple[MediaRow, ...]
    vanished: tuple[MediaRow, ...] = ()
    redrawn: frozenset[str] = frozenset()
    passed_over: tuple[SkippedFile, ...] = ()
    stays_blurred: bool = False


def plan_run(inputs: Sequence[Path], out: Path, options: RunOptions) -> RunPlan:
    """Finds the media and what is left to do for each; writes nothing. Raises UsageError, WeightsError or DeviceError."""
    _check(out, options)
    context = make_context(out, with_folder_blur(options, out))
    skipped: list[SkippedFile] = []
    found = find_media(
        inputs,
        out=out,
        include=options.include,
        exclude=options.exclude,
        follow_symlinks=options.follow_symlinks,
        passed_over=skipped,
    )
    entries = {entry.output: entry for entry in read_catalog(out)}
    todo: list[Medium] = []
    done: list[MediaRow] = []
    redrawn: set[str] = set()
    media = [medium for medium in found if is_in_shard(medium.name, options.shard)]
    for medium in media:
        entry = entries.get(medium.output)
        work = pending_work(medium, entry, context)
        if entry is not None and work == "nothing":
            done.append(entry.row)
            continue
        todo.append(medium)
        redrawn |= {medium.name} if work == "copy" else set()
    gone = _vanished(out, entries.values(), inputs, found={medium.name for medium in media})
    return RunPlan(
        tuple(todo),
        tuple(done),
        vanished=tuple(row for row in gone if is_in_shard(row.media, options.shard)),
        redrawn=frozenset(redrawn),
        passed_over=tuple(each for each in skipped if is_in_shard(each.name, options.shard)),
        stays_blurred=options.blur_faces is None and read_blur_state(out).faces,
    )


def make_context(out: Path, options: RunOptions) -> RunContext:
    """What all media of a new run share, for workers with other working folders. Raises WeightsError."""
    weights = read_weights_file(options.weights or SHIPPED)
    return RunContext(out.absolute(), options.with_absolute_paths(), new_run_id(), weights.labels, weights.sha256)


def new_run_id() -> str:
    """The time, so that ids sort by it, and six random digits, so that two of the same second differ."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"


def is_in_shard(name: str, shard: Shard | None) -> bool:
    """Whether a run of `shard` is about the medium of that name; a run without one is about all."""
    return shard is None or shard.holds(name)


def count_kinds(passed_over: Iterable[SkippedFile]) -> list[dict[str, Any]]:
    """Counts the skipped pictures by kind and extension: `kind`, `extension`, `count` and an `example` of a command that
    converts them; the most frequent first."""
    groups: dict[tuple[str, str], list[SkippedFile]] = {}
    for each in passed_over:
        groups.setdefault((each.format.kind, each.path.suffix.lower()), []).append(each)
    return [
        {"kind": kind, "extension": extension, "count": len(group), "example": group[0].format.conversion_command(Path(group[0].path.name))}
        for (kind, extension), group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _check(out: Path, options: RunOptions) -> None:
    if options.engine == "dask" and importlib.util.find_spec("distributed") is None:
        raise UsageError("--engine dask needs Dask; install it with: pip install 'batchemo[dask]'")
    if options.scheduler is not None and options.engine != "dask":
        raise UsageError(f"--scheduler {options.scheduler} is for --engine dask; give both")
    if options.device.startswith("cuda") and options.scheduler is None:
        from batchemo.devices import choose_device  # noqa: PLC0415 (loads torch)

        choose_device(options.device)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")


def _vanished(out: Path, entries: Iterable[MediumResults], inputs: Sequence[Path], *, found: set[str]) -> Iterator[MediaRow]:
    # Media that killed their workers have a row in `media.parquet` only.
    rows = read_media_rows(out) | {entry.row.media: entry.row for entry in entries}
    for name in sorted(rows.keys() - found):
        if is_vanished(rows[name], inputs):
            yield rows[name]
