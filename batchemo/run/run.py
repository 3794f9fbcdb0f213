"""A run: which media are still to be done, their analysis, and the account of it in the results folder."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from batchemo import __version__
from batchemo.atomic import remove_temporaries, remove_temporaries_of, storage, write_text
from batchemo.emotion.weights import SHIPPED, read_weights_file
from batchemo.errors import UsageError
from batchemo.lock import is_held, locked
from batchemo.media.discover import SkippedFile, find_media
from batchemo.options import RunOptions, Shard, Style
from batchemo.pipeline.resume import PreviousCopy, pending_work, shows_faces
from batchemo.pipeline.segments import FOLDER as PARTS
from batchemo.pipeline.segments import remove_rendered
from batchemo.records import MediaRow, Medium, MediumOutcome
from batchemo.report.site import remove_site, remove_thumbnails, write_site
from batchemo.results.blur_state import read_blur_state, with_folder_blur, write_blur_state
from batchemo.results.catalog import (
    MediumResults,
    is_perhaps_unmounted,
    is_vanished,
    merge_media_rows,
    read_catalog,
    read_media_rows,
    read_medium_results,
    remove_results,
)
from batchemo.results.faces_left import FACES_LEFT
from batchemo.results.paths import files_of, output_names, thumbnails_folder
from batchemo.run.engines import check_engine, make_engine
from batchemo.run.local import count_workers
from batchemo.run.scheduler import Analysis

_PULSES = ".pulses"
_PAGE_LOCK = ".page.lock"
_SAVE_EVERY_SECONDS = 30.0
STAYS_BLURRED = "This results folder is blurred and stays so; to show faces again: --no-blur-faces"
_PACKAGES = tuple("av decord facenet-pytorch numpy opencv-python-headless pandas pi-heif pillow pyarrow simplejpeg torch".split())


@dataclasses.dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run would do: `todo` are analysed, of those named in `redrawn` only the pictures are made again; `done` rows are kept from
    earlier runs; `vanished` media are not there any more; pictures that are not read here are `passed_over`. `stays_blurred`: faces are
    hidden because the folder is so."""

    todo: tuple[Medium, ...]
    done: tuple[MediaRow, ...]
    vanished: tuple[MediaRow, ...] = ()
    redrawn: frozenset[str] = frozenset()
    passed_over: tuple[SkippedFile, ...] = ()
    stays_blurred: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a run: the rows of all its media, in the order of their names, and which were analysed now, or `redrawn` only.

    Of media that are not there any more, results are kept (`vanished`) or were removed (`pruned`). Pictures that are not read here were
    `passed_over`. `page` is the one to look at.
    """

    run_id: str
    rows: tuple[MediaRow, ...]
    analysed: tuple[str, ...]
    seconds: float
    redrawn: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    page: Path | None = None
    passed_over: tuple[SkippedFile, ...] = ()

    @property
    def failed(self) -> tuple[MediaRow, ...]:
        return tuple(row for row in self.rows if row.status == "failed")

    @property
    def faces_left(self) -> tuple[MediaRow, ...]:
        """Media that are done, but whose blurred copy may show a face."""
        return tuple(row for row in self.rows if row.status == "done" and row.error == FACES_LEFT)


@dataclasses.dataclass(frozen=True, slots=True)
class RunCallbacks:
    """How a run tells of itself: `started` gets the plan and the folder of pulses, `finished` each row that is done."""

    started: Callable[[RunPlan, Path], None]
    finished: Callable[[MediaRow], None]


def plan_run(inputs: Sequence[Path], out: Path, options: RunOptions) -> RunPlan:
    """Finds the media and tells those that are done. Raises UsageError or WeightsError; writes nothing."""
    weights = read_weights_file(options.weights or SHIPPED)
    check_engine(options)
    if options.device.startswith("cuda") and options.scheduler is None:
        from batchemo.devices import choose_device  # noqa: PLC0415 (loads torch)

        choose_device(options.device)
    if out.exists() and not out.is_dir():
        raise UsageError(f"--out {out} is a file; give a folder")
    foreign: list[SkippedFile] = []
    media = find_media(
        inputs,
        out=out,
        include=options.include,
        exclude=options.exclude,
        follow_symlinks=options.follow_symlinks,
        passed_over=foreign,
    )
    stays_blurred = options.blur_faces is None and read_blur_state(out).faces
    options = with_folder_blur(options, out)
    entries = {entry.output: entry for entry in read_catalog(out)}
    media = [medium for medium in media if _is_ours(medium.name, options.shard)]
    todo: list[Medium] = []
    done: list[MediaRow] = []
    redrawn: set[str] = set()
    for medium in media:
        entry = entries.get(medium.output)
        left = pending_work(medium, entry, out, options=options, weights_sha256=weights.sha256)
        if entry is not None and left == "nothing":
            done.append(entry.row)
            continue
        todo.append(medium)
        redrawn |= {medium.name} if left == "copy" else set()
    gone = _vanished(out, entries.values(), inputs, found={medium.name for medium in media})
    vanished = tuple(row for row in gone if _is_ours(row.media, options.shard))
    passed_over = tuple(each for each in foreign if _is_ours(each.name, options.shard))
    return RunPlan(tuple(todo), tuple(done), vanished, frozenset(redrawn), passed_over, stays_blurred)


def count_kinds(passed_over: Iterable[SkippedFile]) -> list[dict[str, Any]]:
    """How many pictures of each kind and extension were passed over: `kind`, `extension`, `count` and, for people, an `example` of what
    converts them; most of them first."""
    groups: dict[tuple[str, str], list[SkippedFile]] = {}
    for each in passed_over:
        groups.setdefault((each.format.kind, each.path.suffix.lower()), []).append(each)
    return [
        {"kind": kind, "extension": extension, "count": len(group), "example": group[0].format.conversion_command(Path(group[0].path.name))}
        for (kind, extension), group in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _vanished(out: Path, entries: Iterable[MediumResults], inputs: Sequence[Path], *, found: set[str]) -> Iterator[MediaRow]:
    # Media that killed their workers have a row in `media.parquet` only.
    rows = read_media_rows(out) | {entry.row.media: entry.row for entry in entries}
    for name in sorted(rows.keys() - found):
        if is_vanished(rows[name], inputs):
            yield rows[name]


def _is_ours(name: str, shard: Shard | None) -> bool:
    return shard is None or shard.holds(name)


def run_media(inputs: Sequence[Path], out: Path, options: RunOptions, watch: RunCallbacks, *, job: str = "") -> RunResult:
    """Analyses what is not done yet. Raises UsageError, WeightsError or DeviceError before anything starts, LockedError where
    another run holds `out`, StorageError where `out` cannot be written any more. `job` names the nightly job that this is a run
    of; it writes the page itself, when the account is complete."""
    began = time.monotonic()
    plan_run(inputs, out, options)
    with locked(out, shard=options.shard, wait_seconds=options.wait_s), storage(out):
        planned = plan_run(inputs, out, options)
        options = _with_look(out, options, planned)
        _clean_up(out, options.shard, planned.todo)
        pruned = _prune(out, planned.vanished) if options.prune else set()
        run_id = new_run_id()
        account = _Account(out, run_id, inputs, options, planned, pruned, job=job)
        rows = list(planned.done)
        pulses = out / "runs" / run_id / _PULSES
        pulses.mkdir(parents=True)
        try:
            _tell_of_look(options)
            watch.started(planned, pulses)
            weights = read_weights_file(options.weights or SHIPPED)
            task = Analysis(out.absolute(), options.with_absolute_paths(), run_id, pulses.absolute(), weights.labels, weights.sha256)
            for medium in planned.todo:
                if medium.name not in planned.redrawn:  # of tracks that are numbered anew
                    shutil.rmtree(thumbnails_folder(out, medium.output), ignore_errors=True)
            copies = {medium.name: PreviousCopy.of(medium, out, options, weights_sha256=weights.sha256) for medium in planned.todo}
            for outcome in make_engine(options, planned.todo).run(task, planned.todo):
                copies[outcome.row.media].remove_if_it_does_not_fit(outcome.row)
                rows.append(outcome.row)
                account.add(outcome)
                watch.finished(outcome.row)
            if options.shard is None:  # others' parts are in work, and a shard's own are gone with their media
                shutil.rmtree(out / PARTS, ignore_errors=True)
            _clean_up(out, options.shard, planned.todo)  # of workers that died
        except BaseException as error:
            trace = traceback.format_exc()
            _clean_up(out, options.shard, planned.todo)  # workers that were killed could not do so themselves
            with contextlib.suppress(OSError):  # if the disk is full, that is what must be told
                account.close(rows, ended=type(error).__name__, trace=trace)
            raise
        finally:
            shutil.rmtree(pulses, ignore_errors=True)
        account.close(rows, ended="done")
    if options.blur_faces:
        _tell_of_faces(out)
    page = write_page(out) if options.report and not job else None
    ordered = tuple(sorted(rows, key=lambda row: row.media))
    kept = tuple(row.media for row in planned.vanished if row.media not in pruned)
    analysed = tuple(medium.name for medium in planned.todo if medium.name not in planned.redrawn)
    redrawn = tuple(sorted(planned.redrawn))
    return RunResult(run_id, ordered, analysed, time.monotonic() - began, redrawn, kept, tuple(sorted(pruned)), page, planned.passed_over)


def write_page(out: Path) -> Path | None:
    """Writes the page to look at; None where there is nothing to see, or a run holds `out`, which will do so when it ends: of shards
    that end at once, one at least sees no other. Raises StorageError."""
    with storage(out), FileLock(out / _PAGE_LOCK):
        return write_site(out).page if read_media_rows(out) and not is_held(out) else None


def _tell_of_look(options: RunOptions) -> None:
    """Once, where the look that is asked for cannot be had. Of the hardware of a cluster's machines nothing is known here."""
    log = logging.getLogger("batchemo")
    if not options.annotate:
        plain = Style(blur_faces=bool(options.blur_faces)).as_dict()  # which the page heeds as well
        idle = [f"--{name.replace('_', '-')}" for name, value in options.style().as_dict().items() if value != plain[name]]
        if idle:
            log.warning("%s: without effect, as --no-annotate leaves annotated copies out", ", ".join(idle))
        return
    if options.blur_style == "solid" and not options.blur_faces:
        log.warning("--blur-style: without effect, as faces are shown; to hide them: --blur-faces")
    if not options.hardware or options.scheduler is not None:
        return
    from batchemo.render.encoders import CODEC_NAMES, find_hardware  # noqa: PLC0415 (loads PyAV)

    if find_hardware(options.codec) is None:
        log.warning(
            "no encoder in hardware for %s works on this machine; annotated videos are encoded by software", CODEC_NAMES[options.codec]
        )


def _with_look(out: Path, options: RunOptions, planned: RunPlan) -> RunOptions:
    """The options with the look that the folder has from now on, which is told where it shows faces again that were hidden."""
    with FileLock(out / _PAGE_LOCK):  # another shard may be told to hide faces at the same time
        was_blurred, options = read_blur_state(out).faces, with_folder_blur(options, out)
        write_blur_state(out, options)
        if options.blur_faces:
            remove_thumbnails(out)
    if was_blurred and not options.blur_faces:
        among = f", among them {planned.todo[0].name}" if planned.todo else ""
        message = "this results folder was blurred; the run shows the faces of %d media again%s. To hide them: --blur-faces"
        logging.getLogger("batchemo").warning(message, len(planned.todo), among)
    return options


def _tell_of_faces(out: Path) -> None:
    """After a run that hides them: media that it was not about are named."""
    seen = []
    for output in output_names(out, "annotated"):
        entry = read_medium_results(out, output)
        if entry is None or shows_faces(entry, out):
            seen.append(entry.row.media if entry is not None else output)
    if seen:
        message = "%d media that this run was not about still show faces, among them %s; run on them as well, or remove them"
        logging.getLogger("batchemo").warning(message, len(seen), seen[0])


def _prune(out: Path, vanished: Sequence[MediaRow]) -> set[str]:
    """Removes the results of vanished media; returns their names."""
    gone = {row.media for row in vanished if not is_perhaps_unmounted(row)}
    for row in vanished:
        if row.media not in gone:
            message = "%s: its results are kept, because its folder is empty, as that of a drive is which is not mounted; remove the folder"
            logging.getLogger("batchemo").warning(message, row.media)
    for entry in list(read_catalog(out)):
        if entry.row.media in gone:
            remove_results(out, entry.output)
    if gone:
        with FileLock(out / _PAGE_LOCK):
            remove_site(out)
    return gone


def _clean_up(out: Path, shard: Shard | None, media: Sequence[Medium]) -> None:
    """Removes what killed runs left. Those of other shards may be alive, so that a shard looks after its own media alone."""
    if shard is None:
        with FileLock(out / _PAGE_LOCK):  # the run before may be writing its page yet
            remove_temporaries(out)
        remove_rendered(out / PARTS)
        for pulses in out.glob(f"runs/*/{_PULSES}"):
            shutil.rmtree(pulses, ignore_errors=True)
    else:
        remove_temporaries_of(path for medium in media for path in files_of(out, medium))
        for medium in media:
            remove_temporaries(out / PARTS / medium.output)
            remove_rendered(out / PARTS / medium.output)


class _Account:
    """`media.parquet`, `run_media.json` and `log.jsonl` of a run, kept up to date as it goes."""

    def __init__(
        self, out: Path, run_id: str, inputs: Sequence[Path], options: RunOptions, planned: RunPlan, pruned: Collection[str], *, job: str
    ) -> None:
        self._out = out
        self._folder = out / "runs" / run_id
        self._folder.mkdir(parents=True)
        self._saved = time.monotonic()
        self._pruned = pruned
        self._redrawn = planned.redrawn
        # What another shard's tables say may be old by the time that it is written.
        stored = {entry.row.media: entry.row for entry in read_catalog(out)}
        self._stored = {name: row for name, row in stored.items() if _is_ours(name, options.shard)}
        self._lacking = {name: row for name, row in stored.items() if name not in self._stored}
        self._rows: list[MediaRow] = list(planned.done)
        self._seconds: Counter[str] = Counter()
        weights = read_weights_file(options.weights or SHIPPED)
        self._facts: dict[str, Any] = {
            "run_id": run_id,
            **({"job": job} if job else {}),
            "started": _now(),
            "inputs": [_text(path.absolute()) for path in inputs],
            "options": options.as_dict(),
            "weights": {"path": _text(weights.path), "sha256": weights.sha256, "labels": list(weights.labels)},
            "versions": {"batchemo": __version__, "python": platform.python_version(), **_versions()},
            "machine": {"platform": platform.platform(), "cores": os.cpu_count(), **_processes(options, planned.todo)},
            "media": {"to_do": len(planned.todo), "done_before": len(planned.done)},
            "vanished": [row.media for row in planned.vanished if row.media not in pruned],
            "pruned": sorted(pruned),
            "passed_over": count_kinds(planned.passed_over),
        }
        self._write_facts()
        self._log("started", media=len(planned.todo))

    def add(self, outcome: MediumOutcome) -> None:
        self._rows.append(outcome.row)
        self._seconds.update(outcome.seconds)
        self._log("medium", **outcome.row.as_dict(), seconds_by_stage=_rounded(outcome.seconds))
        if time.monotonic() - self._saved > _SAVE_EVERY_SECONDS:
            self._write_media()
            self._saved = time.monotonic()

    def close(self, rows: Sequence[MediaRow], *, ended: str, trace: str = "") -> None:
        self._rows = list(rows)
        self._write_media()
        failed = [_told(row) for row in rows if row.status == "failed"]
        left = [_told(row) for row in rows if row.status == "done" and row.error == FACES_LEFT]
        self._facts |= {
            "ended": _now(),
            "how": ended,
            "failures": failed,
            **({"faces_left": left} if left else {}),
            "seconds_by_stage": _rounded(self._seconds),
        }
        redrawn = sum(row.media in self._redrawn for row in rows)
        self._facts["media"] |= {
            "analysed": len(rows) - self._facts["media"]["done_before"] - redrawn,
            "redrawn": redrawn,
            "failed": len(failed),
            "frames": sum(row.n_frames_analysed for row in rows),
            "faces": sum(row.n_faces for row in rows),
        }
        self._write_facts()
        self._log("ended", how=ended, trace=trace)

    def _write_media(self) -> None:
        rows = self._stored | {row.media: row for row in self._rows}
        merge_media_rows(self._out, rows, lacking=self._lacking, without=self._pruned)

    def _write_facts(self) -> None:
        write_text(self._folder / "run.json", json.dumps(self._facts, indent=2, ensure_ascii=False) + "\n")

    def _log(self, event: str, **facts: Any) -> None:
        line = json.dumps({"time": _now(), "event": event, **facts}, ensure_ascii=False) + "\n"
        with (self._folder / "log.jsonl").open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                if file.write(line.encode()) < len(line.encode()):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(whole)  # no half lines
                raise


def _told(row: MediaRow) -> dict[str, str]:
    return {"media": row.media, "error": row.error, "message": row.message}


def _processes(options: RunOptions, media: Sequence[Medium]) -> dict[str, int]:
    """How many are started here; of a cluster's nothing is known."""
    return {"processes": count_workers(options.workers, media, device=options.device)} if options.engine == "local" else {}


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
