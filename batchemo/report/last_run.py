"""The last run and the one before it, from their accounts in `runs/`: what has changed between them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

LastRunFacts = dict[str, Any]
"""What stands in a run.json."""


@dataclasses.dataclass(frozen=True, slots=True)
class LastRun:
    """The last run, or the last ones of all shards of it, compared with the one before it of the same job and media.

    `shards` are those that took part, of `of_shards`; a run without shards is 0 of 0. `how` is `done`, the name of the error
    that ended it, or empty where it was killed. `before` is when the run before that began, empty where there was none; times are
    ISO 8601. `failing` are media that failed in the last run and not in the one before, `mended` those that failed in that one and are
    done now. `vanished` are media that are not there any more, `pruned` those of them whose results went with them.
    `drift` says what was beyond its usual range, one line each, and `drift_note` why nothing could be compared.
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
    mended: tuple[str, ...]
    vanished: tuple[str, ...]
    pruned: tuple[str, ...]
    drift: tuple[str, ...]
    drift_note: str


def read_last_run(results: Path, *, done: Collection[str] = ()) -> LastRun | None:
    """None where no account can be read. `done` names the media whose results are whole."""
    accounts = [account for account in map(_read, (results / "runs").glob("*/run.json")) if account]
    # Names of folders tell the second alone.
    accounts.sort(key=lambda account: (str(account.get("started", "")), str(account.get("run_id", ""))), reverse=True)
    if not accounts:
        return None
    same = [account for account in accounts if _purpose(account) == _purpose(accounts[0])]
    last, *earlier = _whole_runs(same)
    before = next((run for run in earlier if all(account.get("how") == "done" for account in run)), None)
    ended = [account for account in last if account.get("how") != "done"]
    failed, failed_before = _all(last, _failed), _all(before or [], _failed)
    return LastRun(
        run_ids=tuple(str(account.get("run_id", "")) for account in last),
        job=str(accounts[0].get("job", "")),
        shards=sum(bool(_shard(account)) for account in last),
        of_shards=int(_shard(last[0]).partition("/")[2] or 0),
        started=min(str(account.get("started", "")) for account in last),
        how=str(ended[0].get("how", "")) if ended else "done",
        message=str(ended[0].get("message", "")) if ended else "",
        analysed=_sum(last, "analysed"),
        redrawn=_sum(last, "redrawn"),
        kept=_sum(last, "done_before"),
        before=min(str(account.get("started", "")) for account in before) if before else "",
        failing=tuple(sorted(failed - failed_before)) if before else (),
        mended=tuple(sorted((failed_before - failed) & set(done))),
        vanished=tuple(sorted(_all(last, lambda account: map(str, account.get("vanished", ()))))),
        pruned=tuple(sorted(_all(last, lambda account: map(str, account.get("pruned", ()))))),
        drift=tuple(finding for account in last for finding in _drift(account)),
        drift_note=next((str(note) for account in last if (note := account.get("drift", {}).get("note"))), ""),
    )


def _read(path: Path) -> LastRunFacts:
    try:
        account = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return account if isinstance(account, dict) else {}


def _purpose(account: LastRunFacts) -> tuple[Any, ...]:
    """Runs that differ in it look at different media, so that what failed in one and not in the other tells nothing."""
    options = account.get("options", {})
    parts = _shard(account).partition("/")[2]
    return account.get("job", ""), account.get("inputs"), options.get("include"), options.get("exclude"), parts


def _shard(account: LastRunFacts) -> str:
    return account.get("options", {}).get("shard") or ""


def _whole_runs(accounts: Sequence[LastRunFacts]) -> Iterator[list[LastRunFacts]]:
    """Latest first: each account by itself, or those of different shards together, which are one run on several machines."""
    run: list[LastRunFacts] = []
    for account in accounts:
        if run and (not _shard(account) or any(_shard(each) == _shard(account) for each in run)):
            yield run
            run = []
        run.append(account)
    yield run


def _all(accounts: Iterable[LastRunFacts], names: Callable[[LastRunFacts], Iterable[str]]) -> set[str]:
    return {name for account in accounts for name in names(account)}


def _failed(account: LastRunFacts) -> Iterator[str]:
    yield from (str(failure.get("media", "")) for failure in account.get("failures", ()))


def _sum(accounts: Iterable[LastRunFacts], name: str) -> int:
    return sum(int(account.get("media", {}).get(name, 0)) for account in accounts)


def _drift(account: LastRunFacts) -> Iterator[str]:
    """Each shard is compared with itself."""
    shard = f"shard {_shard(account)}: " if _shard(account) else ""
    yield from (f"{shard}{finding.get('text', '')}" for finding in account.get("drift", {}).get("findings", ()))
