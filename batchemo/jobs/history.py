"""The accounts of a job's runs, `runs/<id>/run.json` and `log.jsonl`: read, completed, and not kept for ever."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

from batchemo.atomic import write_text

RunFacts = dict[str, Any]
"""What stands in a run.json."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunRecord:
    """The account of one run in its `folder`; `facts` are those of run.json and may be added to."""

    folder: Path
    facts: RunFacts

    @property
    def shard(self) -> str:
        return self.facts.get("options", {}).get("shard") or ""

    @property
    def has_ended(self) -> bool:
        """False for a run that goes on, or that was killed before it could say a word."""
        return "how" in self.facts

    def save(self) -> None:
        """Raises OSError."""
        text = json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n"
        # Names of files may hold what is no text; escaped like this it is JSON all the same.
        write_text(self.folder / "run.json", text.encode(errors="backslashreplace").decode())

    def log(self, event: str, **facts: Any) -> None:
        """Adds a line to log.jsonl. Raises OSError."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": event, **facts}, ensure_ascii=False) + "\n")


def read_run_record(folder: Path) -> RunRecord | None:
    """The account in `folder`; None where there is none that is whole."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return RunRecord(folder, facts) if isinstance(facts, dict) else None


def read_run_records(out: Path, job: str) -> list[RunRecord]:
    """Accounts of all runs of `job` in the results folder `out`, the oldest first."""
    runs = out / "runs"
    found = [read_run_record(folder) for folder in runs.iterdir()] if runs.is_dir() else []
    ours = [account for account in found if account is not None and account.facts.get("job") == job]
    # Names of folders tell the second alone.
    return sorted(ours, key=lambda account: (account.facts.get("started", ""), account.folder.name))


def remove_old_runs(out: Path, job: str, *, runs: int, shard: str = "") -> list[Path]:
    """Removes the folders of all but the last `runs` runs of `job` (and of this shard, which knows nothing of the others).

    Runs of other jobs, those started by hand, and results are left alone. What cannot be removed stays. Returns what was removed.
    """
    accounts = [account for account in read_run_records(out, job) if account.shard == shard]
    old = [account.folder for account in accounts[:-runs] if not account.folder.is_symlink()]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return old
