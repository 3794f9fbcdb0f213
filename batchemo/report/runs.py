"""The last run and the one before it, from their accounts in `runs/`: what has changed between them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class LastRun:
    """`failing` are media that failed in the last run and not in the one before, `mended` the other way round.

    `before` is when the run before that began, empty where there was none; times are ISO 8601.
    """

    run_id: str
    started: str
    ended: str
    version: str
    analysed: int
    kept: int
    before: str
    failing: tuple[str, ...]
    mended: tuple[str, ...]


def read_last_run(results: Path) -> LastRun | None:
    """None where no account can be read. One of the machine's own names sorts by time."""
    accounts = []
    for path in sorted((results / "runs").glob("*/run.json"), reverse=True):
        account = _read(path)
        if account:
            accounts.append(account)
        if len(accounts) == 2:
            break
    if not accounts:
        return None
    last, before = accounts[0], accounts[1] if len(accounts) > 1 else {}
    failed, failed_before = _failed(last), _failed(before)
    media = last.get("media", {})
    return LastRun(
        run_id=str(last.get("run_id", "")),
        started=str(last.get("started", "")),
        ended=str(last.get("ended", "")),
        version=str(last.get("versions", {}).get("batchemo", "")),
        analysed=int(media.get("analysed", 0)),
        kept=int(media.get("done_before", 0)),
        before=str(before.get("started", "")),
        failing=tuple(sorted(failed - failed_before)) if before else (),
        mended=tuple(sorted(failed_before - failed)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        account = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return account if isinstance(account, dict) else {}


def _failed(account: dict[str, Any]) -> set[str]:
    return {str(failure.get("media", "")) for failure in account.get("failures", ())}
