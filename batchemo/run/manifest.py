"""The manifest of a run: `run.json` and `log.jsonl` in its folder, and its rows of `media.parquet`."""

from __future__ import annotations

import contextlib
import datetime
import errno
import importlib.metadata
import json
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchemo import __version__
from batchemo.atomic import write_text
from batchemo.emotion.weights import SHIPPED
from batchemo.pipeline.context import RunContext
from batchemo.records import MediaRow, MediumOutcome
from batchemo.results.catalog import merge_media_rows, read_catalog
from batchemo.results.unblurred_faces import FACES_LEFT
from batchemo.run.plan import RunPlan, count_kinds, is_in_shard

_SAVE_EVERY_SECONDS = 30.0
_PACKAGES = tuple("av decord facenet-pytorch numpy opencv-python-headless pandas pi-heif pillow pyarrow simplejpeg torch".split())

_DIFFERENCES = "Their probabilities may differ slightly; to analyse all on one: --force"


class RunManifest:
    """Records inputs, options and machine of a run, and the outcome of each medium, while the run works.

    - `pruned`: media whose results were removed.
    - `processes`: number of processes on this machine that work; None where they are on others.
    - `job`: name of the job that this is a run of; empty for none.
    """

    def __init__(
        self,
        out: Path,
        inputs: Sequence[Path],
        context: RunContext,
        plan: RunPlan,
        *,
        pruned: Collection[str],
        processes: int | None,
        job: str,
    ) -> None:
        options = context.options
        self._out = out
        self._folder = out / "runs" / context.run_id
        self._folder.mkdir(parents=True)
        self._saved = time.monotonic()
        self._pruned = pruned
        self._redrawn = plan.redrawn
        self._analysed = False
        entries = list(read_catalog(out))
        self._processors = {entry.row.media: entry.processors for entry in entries}
        # The tables of another shard may be replaced before its rows are written here.
        self._stored = {entry.row.media: entry.row for entry in entries if is_in_shard(entry.row.media, options.shard)}
        self._lacking = {entry.row.media: entry.row for entry in entries if entry.row.media not in self._stored}
        self._rows: list[MediaRow] = list(plan.done)
        self._seconds: Counter[str] = Counter()
        weights = {"path": _text(options.weights or SHIPPED), "sha256": context.weights_sha256, "labels": list(context.labels)}
        self._facts: dict[str, Any] = {
            "run_id": context.run_id,
            **({"job": job} if job else {}),
            "started": _now(),
            "inputs": [_text(path.absolute()) for path in inputs],
            "options": options.as_dict(),
            "weights": weights,
            "versions": {"batchemo": __version__, "python": platform.python_version(), **_versions()},
            "machine": {
                "platform": platform.platform(),
                "cores": os.cpu_count(),
                **({} if processes is None else {"processes": processes}),
            },
            "media": {"to_do": len(plan.todo), "done_before": len(plan.done)},
            "vanished": [row.media for row in plan.vanished if row.media not in pruned],
            "pruned": sorted(pruned),
            "passed_over": count_kinds(plan.passed_over),
        }
        self._write_facts()
        self._log("started", media=len(plan.todo))

    def add(self, outcome: MediumOutcome) -> None:
        """Records the outcome of a medium."""
        self._rows.append(outcome.row)
        self._seconds.update(outcome.seconds)
        self._processors[outcome.row.media] = outcome.processors
        self._analysed |= outcome.row.media not in self._redrawn
        self._log("medium", **outcome.row.as_dict(), processors=outcome.processors, seconds_by_stage=_rounded(outcome.seconds))
        if time.monotonic() - self._saved > _SAVE_EVERY_SECONDS:
            self._write_media()
            self._saved = time.monotonic()

    def close(self, *, ended: str, trace: str = "") -> None:
        """Completes the manifest. `ended` is `done`, or the name of the error that ended the run."""
        rows = self._rows
        self._write_media()
        failed = [_reason(row) for row in rows if row.status == "failed"]
        left = [_reason(row) for row in rows if row.status == "done" and row.error == FACES_LEFT]
        processors = Counter(name for row in rows for name in self._processors.get(row.media, ()))
        self._facts |= {
            "ended": _now(),
            "how": ended,
            "failures": failed,
            **({"faces_left": left} if left else {}),
            "processors": dict(sorted(processors.items())),
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
        if len(processors) > 1 and self._analysed:
            listed = ", ".join(f"{count} on {name}" for name, count in processors.most_common())
            logging.getLogger("batchemo").warning("media were analysed on different processors: %s. %s", listed, _DIFFERENCES)

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


def _reason(row: MediaRow) -> dict[str, str]:
    return {"media": row.media, "error": row.error, "message": row.message}


def _rounded(seconds: Mapping[str, float]) -> dict[str, float]:
    return {stage: round(taken, 3) for stage, taken in seconds.items()}


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


def _text(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
