"""A run: which media are still to be done, their analysis, and the account of it in the results folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import importlib.metadata
import json
import os
import platform
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from batchemo import __version__
from batchemo.atomic import remove_temporaries, remove_temporaries_of, write_text
from batchemo.discover import find_media
from batchemo.engine import choose_engine
from batchemo.errors import LockedError, UsageError
from batchemo.fingerprint import is_same
from batchemo.index import merge_into_index
from batchemo.options import RunOptions
from batchemo.parts import FOLDER as PARTS
from batchemo.records import MediaRow, Medium, Outcome
from batchemo.shard import Shard, lock_name, rival_locks
from batchemo.tables import SCHEMA_VERSION, annotated_path, files_of, read_metadata, table_path
from batchemo.weights import SHIPPED, WeightsFile, read_weights_file
from batchemo.work import Analysis

_SAVE_EVERY_SECONDS = 30.0
_PACKAGES = ("av", "decord", "facenet-pytorch", "numpy", "opencv-python-headless", "pandas", "pyarrow", "torch")


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do: `todo` are analysed, `done` rows are kept from earlier runs."""

    todo: tuple[Medium, ...]
    done: tuple[MediaRow, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What became of a run: the rows of all its media, in the order of their names, and which were analysed now."""

    run_id: str
    rows: tuple[MediaRow, ...]
    analysed: tuple[str, ...]
    seconds: float

    @property
    def failed(self) -> tuple[MediaRow, ...]:
        return tuple(row for row in self.rows if row.status == "failed")


@dataclasses.dataclass(frozen=True, slots=True)
class Watch:
    """How a run tells of itself: `started` gets the plan and the folder of pulses, `finished` each row that is done."""

    started: Callable[[Plan, Path], None]
    finished: Callable[[MediaRow], None]


def plan(inputs: Sequence[Path], out: Path, options: RunOptions) -> Plan:
    """Finds the media and tells those that are done. Raises UsageError or WeightsError; writes nothing."""
    weights = read_weights_file(options.weights or SHIPPED)
    if options.device.startswith("cuda"):
        from batchemo.devices import choose_device  # noqa: PLC0415 (loads torch)

        choose_device(options.device)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    media = find_media(inputs, out=out, include=options.include, exclude=options.exclude, follow_symlinks=options.follow_symlinks)
    if options.shard is not None:
        media = [medium for medium in media if options.shard.holds(medium.name)]
    todo: list[Medium] = []
    done: list[MediaRow] = []
    for medium in media:
        row = None if options.force else _row_if_done(medium, out, options, weights)
        if row is None:
            todo.append(medium)
        else:
            done.append(row)
    return Plan(tuple(todo), tuple(done))


def run(inputs: Sequence[Path], out: Path, options: RunOptions, watch: Watch, *, job: str = "") -> Report:
    """Analyses what is not done yet. Raises UsageError, WeightsError or DeviceError before anything starts, LockedError where
    another run holds `out`. `job` names the nightly job that this is a run of."""
    began = time.monotonic()
    planned = plan(inputs, out, options)
    with _locked(out, options.shard):
        planned = plan(inputs, out, options)
        _clean_up(out, options.shard, planned.todo)
        run_id = new_run_id()
        account = _Account(out, run_id, inputs, options, planned, job=job)
        rows = list(planned.done)
        pulses = out / "runs" / run_id / ".pulses"
        pulses.mkdir(parents=True)
        try:
            watch.started(planned, pulses)
            weights = read_weights_file(options.weights or SHIPPED)
            task = Analysis(out.absolute(), options, run_id, pulses.absolute(), weights.labels, weights.sha256)
            engine = choose_engine(
                options.workers, planned.todo, device=options.device, timeout_s=options.timeout, max_memory_mb=options.max_memory
            )
            for outcome in engine.run(task, planned.todo):
                rows.append(outcome.row)
                account.add(outcome)
                watch.finished(outcome.row)
            if options.shard is None:  # others' parts are in work, and a shard's own are gone with their media
                shutil.rmtree(out / PARTS, ignore_errors=True)
        except BaseException as error:
            account.close(rows, ended=type(error).__name__, trace=traceback.format_exc())
            _clean_up(out, options.shard, planned.todo)  # workers that were killed could not do so themselves
            raise
        finally:
            shutil.rmtree(pulses, ignore_errors=True)
        account.close(rows, ended="done")
    ordered = tuple(sorted(rows, key=lambda row: row.media))
    return Report(run_id, ordered, tuple(medium.name for medium in planned.todo), time.monotonic() - began)


def _row_if_done(medium: Medium, out: Path, options: RunOptions, weights: WeightsFile) -> MediaRow | None:
    """The medium's row, where its tables are there and were made of the same content, with the same weights and options."""
    metadata, values = read_metadata(table_path(out, "frames", medium.output))
    if not values or metadata.get("schema_version") != SCHEMA_VERSION:
        return None
    if metadata["weights_sha256"] != weights.sha256 or metadata["options"] != options.shaping():
        return None
    if not all(table_path(out, table, medium.output).is_file() for table in ("faces", "tracks", "episodes")):
        return None
    row = MediaRow(**values)
    if not is_same(medium.path, metadata["fingerprint"]):
        return None
    if row.status == "failed":
        return None if options.retry_failed else row
    return None if options.annotate and not annotated_path(out, medium).is_file() else row


def _clean_up(out: Path, shard: Shard | None, media: Sequence[Medium]) -> None:
    """Removes what killed runs left. Those of other shards may be alive, so that a shard looks after its own media alone."""
    if shard is None:
        remove_temporaries(out)
    else:
        remove_temporaries_of(path for medium in media for path in files_of(out, medium))
        for medium in media:
            remove_temporaries(out / PARTS / medium.output)


@contextlib.contextmanager
def _locked(out: Path, shard: Shard | None) -> Iterator[None]:
    """Shards of one division share the folder; a run of all media, or of another division, has it alone."""
    held = LockedError(f"another run is writing to {out}; wait for it, or give another folder with --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / lock_name(shard))
        lock.acquire(timeout=0)
    except Timeout as error:
        raise held from error
    except OSError as error:
        raise UsageError(f"--out {out}: cannot write there ({error.strerror}); give another folder") from error
    try:
        # Each takes its own lock before it looks at others': of two that start at once, one at least sees the other.
        if any(is_held(path) for path in rival_locks(out, shard)):
            raise held
        yield
    finally:
        lock.release()


def is_held(lock: Path) -> bool:
    """Whether a process holds that lock. Asks by a shared lock, so that several may ask at once without seeing each other."""
    try:
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return True
        raise
    return False


class _Account:
    """`media.parquet`, `run.json` and `log.jsonl` of a run, kept up to date as it goes."""

    def __init__(self, out: Path, run_id: str, inputs: Sequence[Path], options: RunOptions, planned: Plan, *, job: str) -> None:
        self._out = out
        self._folder = out / "runs" / run_id
        self._folder.mkdir(parents=True)
        self._saved = time.monotonic()
        self._rows: list[MediaRow] = list(planned.done)
        self._seconds: Counter[str] = Counter()
        weights = read_weights_file(options.weights or SHIPPED)
        self._facts: dict[str, Any] = {
            "run_id": run_id,
            **({"job": job} if job else {}),
            "started": _now(),
            "inputs": [_text(path.absolute()) for path in inputs],
            "options": options.model_dump(mode="json"),
            "weights": {"path": _text(weights.path), "sha256": weights.sha256, "labels": list(weights.labels)},
            "versions": {"batchemo": __version__, "python": platform.python_version(), **_versions()},
            "machine": {"platform": platform.platform(), "cores": os.cpu_count()},
            "media": {"to_do": len(planned.todo), "done_before": len(planned.done)},
        }
        self._write_facts()
        self._log("started", media=len(planned.todo))

    def add(self, outcome: Outcome) -> None:
        self._rows.append(outcome.row)
        self._seconds.update(outcome.seconds)
        self._log("medium", **outcome.row.as_dict(), seconds_by_stage=_rounded(outcome.seconds))
        if time.monotonic() - self._saved > _SAVE_EVERY_SECONDS:
            merge_into_index(self._out, self._rows)
            self._saved = time.monotonic()

    def close(self, rows: Sequence[MediaRow], *, ended: str, trace: str = "") -> None:
        self._rows = list(rows)
        merge_into_index(self._out, self._rows)
        failed = [{"media": row.media, "error": row.error, "message": row.message} for row in rows if row.status == "failed"]
        self._facts |= {"ended": _now(), "how": ended, "failures": failed, "seconds_by_stage": _rounded(self._seconds)}
        self._facts["media"] |= {
            "analysed": len(rows) - self._facts["media"]["done_before"],
            "failed": len(failed),
            "frames": sum(row.n_frames_analysed for row in rows),
            "faces": sum(row.n_faces for row in rows),
        }
        self._write_facts()
        self._log("ended", how=ended, trace=trace)

    def _write_facts(self) -> None:
        write_text(self._folder / "run.json", json.dumps(self._facts, indent=2, ensure_ascii=False) + "\n")

    def _log(self, event: str, **facts: Any) -> None:
        with (self._folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": _now(), "event": event, **facts}, ensure_ascii=False) + "\n")


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(taken, 3) for stage, taken in seconds.items()}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def new_run_id() -> str:
    """Sorts by time; two of the same second differ."""
    return f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%SZ}-{os.urandom(3).hex()}"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _text(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
