"""A run: plans, analyses what is left to do, and keeps the results folder in order."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from batchemo.atomic import remove_temporaries, remove_temporaries_of, storage
from batchemo.lock import is_held, locked
from batchemo.media.discover import SkippedFile
from batchemo.options import RunOptions, Shard, Style
from batchemo.pipeline.resume import PreviousCopy, shows_faces
from batchemo.pipeline.segments import SEGMENTS_FOLDER, remove_rendered
from batchemo.records import MediaRow, Medium
from batchemo.report.site import remove_site, remove_thumbnails, write_site
from batchemo.results.blur_state import read_blur_state, with_folder_blur, write_blur_state
from batchemo.results.catalog import (
    is_perhaps_unmounted,
    read_catalog,
    read_media_rows,
    read_medium_results,
    remove_results,
)
from batchemo.results.paths import files_of, output_names, thumbnails_folder
from batchemo.results.unblurred_faces import FACES_LEFT
from batchemo.run.manifest import RunManifest
from batchemo.run.plan import RunPlan, make_context, plan_run
from batchemo.run.processes import Engine, choose_engine
from batchemo.run.tasks import AnalysisTask

_LOG = logging.getLogger("batchemo")

_HEARTBEATS = ".heartbeats"
_PAGE_LOCK = ".page.lock"


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """What became of a run.

    - `rows` of all its media, by name; `analysed` names those of this run, `redrawn` those whose annotated copies alone were made again.
    - Media that are not there any more: their results are kept (`vanished`) or were removed (`pruned`).
    - `page`: the page of results. `passed_over`: pictures in formats that are not supported.
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
    """Called as a run goes: `started` with the plan and the folder of heartbeats, `finished` with the row of each medium."""

    started: Callable[[RunPlan, Path], None]
    finished: Callable[[MediaRow], None]


def run_media(inputs: Sequence[Path], out: Path, options: RunOptions, callbacks: RunCallbacks, *, job: str = "") -> RunResult:
    """Analyses what is not done yet.

    `job` is the name of the job that this is a run of; a job writes the page itself. Raises UsageError, WeightsError or DeviceError before
    anything starts, LockedError where another run holds `out`, StorageError where `out` cannot be written any more.
    """
    began = time.monotonic()
    plan_run(inputs, out, options)
    with locked(out, shard=options.shard, wait_seconds=options.wait_s), storage(out):
        plan = plan_run(inputs, out, options)
        options = _set_blur_state(out, options, plan)
        _clean_up(out, options.shard, plan.todo)
        pruned = _prune(out, plan.vanished) if options.prune else set()
        context = make_context(out, options)
        engine = _make_engine(options, plan.todo)
        manifest = RunManifest(out, inputs, context, plan, pruned=pruned, processes=engine.processes, job=job)
        rows = list(plan.done)
        heartbeats = out / "runs" / context.run_id / _HEARTBEATS
        heartbeats.mkdir(parents=True)
        try:
            _warn_of_style(options)
            callbacks.started(plan, heartbeats)
            for medium in plan.todo:
                if medium.name not in plan.redrawn:  # its tracks have new numbers
                    shutil.rmtree(thumbnails_folder(out, medium.output), ignore_errors=True)
            copies = {medium.name: PreviousCopy.of(medium, context) for medium in plan.todo}
            task = AnalysisTask(context, heartbeats.absolute())
            for outcome in engine.run(task, plan.todo):
                copies[outcome.row.media].remove_if_outdated(outcome.row)
                rows.append(outcome.row)
                manifest.add(outcome)
                callbacks.finished(outcome.row)
            if options.shard is None:  # segments of other shards may be in use; those of this one were removed with their media
                shutil.rmtree(out / SEGMENTS_FOLDER, ignore_errors=True)
            _clean_up(out, options.shard, plan.todo)  # files of workers that died
        except BaseException as error:
            trace = traceback.format_exc()
            _clean_up(out, options.shard, plan.todo)  # files of workers that were killed
            with contextlib.suppress(OSError):  # where the disk is full, `error` says so
                manifest.close(ended=type(error).__name__, trace=trace)
            raise
        finally:
            shutil.rmtree(heartbeats, ignore_errors=True)
        manifest.close(ended="done")
    if options.blur_faces:
        _warn_of_faces(out)
    page = write_page(out) if options.report and not job else None
    return RunResult(
        context.run_id,
        tuple(sorted(rows, key=lambda row: row.media)),
        analysed=tuple(medium.name for medium in plan.todo if medium.name not in plan.redrawn),
        seconds=time.monotonic() - began,
        redrawn=tuple(sorted(plan.redrawn)),
        vanished=tuple(row.media for row in plan.vanished if row.media not in pruned),
        pruned=tuple(sorted(pruned)),
        page=page,
        passed_over=plan.passed_over,
    )


def write_page(out: Path) -> Path | None:
    """Writes the page of results. None where there are none, or where a run holds `out`, which writes the page when it ends: of shards that
    end at once, the last one sees no other. Raises StorageError."""
    with storage(out), FileLock(out / _PAGE_LOCK):
        return write_site(out).page if read_media_rows(out) and not is_held(out) else None


def _make_engine(options: RunOptions, media: Sequence[Medium]) -> Engine:
    """The engine that the options name. To add one: a module like `processes` or `dask`, and two lines here."""
    workers, device, timeout_s, max_memory_mb = options.workers, options.device, options.timeout_s, options.max_memory_mb
    if options.engine == "local":
        return choose_engine(workers, media, device=device, timeout_s=timeout_s, max_memory_mb=max_memory_mb)
    from batchemo.run.dask import DaskEngine  # noqa: PLC0415 (may not be installed)

    return DaskEngine(options.scheduler, workers=workers, device=device, timeout_s=timeout_s, max_memory_mb=max_memory_mb)


def _warn_of_style(options: RunOptions) -> None:
    """Warns once of options without effect, and of missing hardware encoders; those of a cluster's machines are not known here."""
    if not options.annotate:
        plain = Style(blur_faces=bool(options.blur_faces)).as_dict()  # the page hides faces as well
        idle = [f"--{name.replace('_', '-')}" for name, value in options.style().as_dict().items() if value != plain[name]]
        if idle:
            _LOG.warning("%s: without effect, as --no-annotate leaves annotated copies out", ", ".join(idle))
        return
    if options.blur_style == "solid" and not options.blur_faces:
        _LOG.warning("--blur-style: without effect, as faces are shown; to hide them: --blur-faces")
    if not options.hardware or options.scheduler is not None:
        return
    from batchemo.render.encoders import CODEC_NAMES, find_hardware  # noqa: PLC0415 (loads PyAV)

    if find_hardware(options.codec) is None:
        name = CODEC_NAMES[options.codec]
        _LOG.warning("no hardware encoder for %s works on this machine; annotated videos are encoded in software", name)


def _set_blur_state(out: Path, options: RunOptions, plan: RunPlan) -> RunOptions:
    """Marks the folder as blurred or not, and returns the options with that state. Warns if hidden faces will be shown again."""
    with FileLock(out / _PAGE_LOCK):  # another shard may start with --blur-faces at the same time
        was_blurred, options = read_blur_state(out).faces, with_folder_blur(options, out)
        write_blur_state(out, options)
        if options.blur_faces:
            remove_thumbnails(out)
    if was_blurred and not options.blur_faces:
        among = f", among them {plan.todo[0].name}" if plan.todo else ""
        message = "this results folder was blurred; the run shows the faces of %d media again%s. To hide them: --blur-faces"
        _LOG.warning(message, len(plan.todo), among)
    return options


def _warn_of_faces(out: Path) -> None:
    """Warns, after a run that hides faces, of other media in the folder that still show some."""
    shown = []
    for output in output_names(out, "annotated"):
        entry = read_medium_results(out, output)
        if entry is None or shows_faces(entry, out):
            shown.append(entry.row.media if entry is not None else output)
    if shown:
        message = "%d media that this run was not about still show faces, among them %s; run on them as well, or remove them"
        _LOG.warning(message, len(shown), shown[0])


def _prune(out: Path, vanished: Sequence[MediaRow]) -> set[str]:
    """Removes the results of vanished media; returns their names."""
    gone = {row.media for row in vanished if not is_perhaps_unmounted(row)}
    for row in vanished:
        if row.media not in gone:
            message = "%s: its results are kept, because its folder is empty, as that of a drive is which is not mounted; remove the folder"
            _LOG.warning(message, row.media)
    for entry in list(read_catalog(out)):
        if entry.row.media in gone:
            remove_results(out, entry.output)
    if gone:
        with FileLock(out / _PAGE_LOCK):
            remove_site(out)
    return gone


def _clean_up(out: Path, shard: Shard | None, media: Sequence[Medium]) -> None:
    """Removes temporary files of killed runs. A shard removes those of its own media only, as runs of other shards may be alive."""
    if shard is None:
        with FileLock(out / _PAGE_LOCK):  # the previous run may still be writing its page
            remove_temporaries(out)
        remove_rendered(out / SEGMENTS_FOLDER)
        for name in (_HEARTBEATS, ".pulses"):  # the name in older versions
            for heartbeats in out.glob(f"runs/*/{name}"):
                shutil.rmtree(heartbeats, ignore_errors=True)
    else:
        remove_temporaries_of(path for medium in media for path in files_of(out, medium))
        for medium in media:
            remove_temporaries(out / SEGMENTS_FOLDER / medium.output)
            remove_rendered(out / SEGMENTS_FOLDER / medium.output)
