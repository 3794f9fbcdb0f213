"""Compares the last run with the one before, by their manifests `runs/*/run.json`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

_Manifest = dict[str, Any]
"""The content of a run.json."""


@dataclasses.dataclass(frozen=True, slots=True)
class LastRun:
    """The last run, with all its shards, compared with the previous one of the same job and media.

    - `shards`, `of_shards`: the shards that took part, and their total; 0 of 0 for a run without shards.
    - `started`: when it began, in ISO 8601; `before`: when the previous run began, empty where there is none.
    - `how`: `done`, the name of the error that ended it, or empty where it was killed.
    - `failing`: media that failed in the last run and not in the previous one; `recovered`: those that failed before and are done now.
    - `vanished`: media that no longer exist; `pruned`: those of them whose results were removed.
    - `drift`: findings, a line each; `drift_note`: why nothing could be compared.
    """

    run_ids: tuple[str, ...]
    job: str
    shards: int
    of_shards: int
    started: str
    how: str
    message: str
    analysed: int
    redrawn: int
    kept: int
    before: str
    failing: tuple[str, ...]
    recovered: tuple[str, ...]
    vanished: tuple[str, ...]
    pruned: tuple[str, ...]
    drift: tuple[str, ...]
    drift_note: str


def read_last_run(results: Path, *, done: Collection[str] = ()) -> LastRun | None:
    """None where no manifest can be read. `done` are the names of the media that are analysed without an error."""
    manifests = [manifest for manifest in map(_read, (results / "runs").glob("*/run.json")) if manifest]
    # Names of folders have a resolution of one second.
    manifests.sort(key=lambda manifest: (str(manifest.get("started", "")), str(manifest.get("run_id", ""))), reverse=True)
    if not manifests:
        return None
    same = [manifest for manifest in manifests if _purpose(manifest) == _purpose(manifests[0])]
    last, *earlier = _whole_runs(same)
    before = next((run for run in earlier if all(manifest.get("how") == "done" for manifest in run)), None)
    ended = [manifest for manifest in last if manifest.get("how") != "done"]
    failed, failed_before = _all(last, _failed), _all(before or [], _failed)
    return LastRun(
        run_ids=tuple(str(manifest.get("run_id", "")) for manifest in last),
        job=str(manifests[0].get("job", "")),
        shards=sum(bool(_shard(manifest)) for manifest in last),
        of_shards=int(_shard(last[0]).partition("/")[2] or 0),
        started=min(str(manifest.get("started", "")) for manifest in last),
        how=str(ended[0].get("how", "")) if ended else "done",
        message=str(ended[0].get("message", "")) if ended else "",
        analysed=_sum(last, "analysed"),
        redrawn=_sum(last, "redrawn"),
        kept=_sum(last, "done_before"),
        before=min(str(manifest.get("started", "")) for manifest in before) if before else "",
        failing=tuple(sorted(failed - failed_before)) if before else (),
        recovered=tuple(sorted((failed_before - failed) & set(done))),
        vanished=tuple(sorted(_all(last, lambda manifest: map(str, manifest.get("vanished", ()))))),
        pruned=tuple(sorted(_all(last, lambda manifest: map(str, manifest.get("pruned", ()))))),
        drift=tuple(finding for manifest in last for finding in _drift(manifest)),
        drift_note=next((str(note) for manifest in last if (note := manifest.get("drift", {}).get("note"))), ""),
    )


def _read(path: Path) -> _Manifest:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _purpose(manifest: _Manifest) -> tuple[Any, ...]:
    """Runs that differ in it analyse different media, so that their failures cannot be compared."""
    options = manifest.get("options", {})
    parts = _shard(manifest).partition("/")[2]
    return manifest.get("job", ""), manifest.get("inputs"), options.get("include"), options.get("exclude"), parts


def _shard(manifest: _Manifest) -> str:
    return manifest.get("options", {}).get("shard") or ""


def _whole_runs(manifests: Sequence[_Manifest]) -> Iterator[list[_Manifest]]:
    """Latest first: each manifest by itself; those of different shards together, as one run on several machines."""
    run: list[_Manifest] = []
    for manifest in manifests:
        if run and (not _shard(manifest) or any(_shard(each) == _shard(manifest) for each in run)):
            yield run
            run = []
        run.append(manifest)
    yield run


def _all(manifests: Iterable[_Manifest], names: Callable[[_Manifest], Iterable[str]]) -> set[str]:
    return {name for manifest in manifests for name in names(manifest)}


def _failed(manifest: _Manifest) -> Iterator[str]:
    yield from (str(failure.get("media", "")) for failure in manifest.get("failures", ()))


def _sum(manifests: Iterable[_Manifest], name: str) -> int:
    return sum(int(manifest.get("media", {}).get(name, 0)) for manifest in manifests)


def _drift(manifest: _Manifest) -> Iterator[str]:
    """Each shard is compared with its own earlier runs."""
    shard = f"shard {_shard(manifest)}: " if _shard(manifest) else ""
    yield from (f"{shard}{finding.get('text', '')}" for finding in manifest.get("drift", {}).get("findings", ()))
