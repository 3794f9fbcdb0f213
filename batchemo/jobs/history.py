"""The run records of a job, `runs/<id>/run.json` and `log.jsonl`: read, completed, and removed when they are old."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from pathlib import Path
from typing import Any

from batchemo.atomic import write_text

RunFacts = dict[str, Any]
"""The content of a run.json."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunRecord:
    """The record of one run in its `folder`. `facts` are those of run.json; callers may add to them and `save`."""

    folder: Path
    facts: RunFacts

    @property
    def shard(self) -> str:
        return self.facts.get("options", {}).get("shard") or ""

    @property
    def has_ended(self) -> bool:
        """False for a run that is still running, or that was killed."""
        return "how" in self.facts

    def save(self) -> None:
        """Writes run.json. Raises OSError."""
        text = json.dumps(self.facts, indent=2, ensure_ascii=False) + "\n"
        # Names of files may be invalid Unicode; such escapes keep the JSON valid.
        write_text(self.folder / "run.json", text.encode(errors="backslashreplace").decode())

    def log(self, event: str, **facts: Any) -> None:
        """Adds a line to log.jsonl. Raises OSError."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": now, "event": event, **facts}, ensure_ascii=False) + "\n")


def read_run_record(folder: Path) -> RunRecord | None:
    """The run record in `folder`; None where there is none, or a damaged one."""
    try:
        facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return RunRecord(folder, facts) if isinstance(facts, dict) else None


def read_run_records(out: Path, job: str) -> list[RunRecord]:
    """Records of all runs of `job` in the results folder `out`, the oldest first."""
    runs = out / "runs"
    found = [read_run_record(folder) for folder in runs.iterdir()] if runs.is_dir() else []
    ours = [record for record in found if record is not None and record.facts.get("job") == job]
    # Names of folders are exact to the second only.
    return sorted(ours, key=lambda record: (record.facts.get("started", ""), record.folder.name))


def remove_old_runs(out: Path, job: str, *, runs: int, shard: str = "") -> list[Path]:
    """Removes the folders of all but the last `runs` runs of `job` and `shard`; returns those folders.

    Runs of other jobs and shards, runs started by hand, and results are left alone. Folders that cannot be removed stay.
    """
    records = [record for record in read_run_records(out, job) if record.shard == shard]
    old = [record.folder for record in records[:-runs] if not record.folder.is_symlink()]
    for folder in old:
        shutil.rmtree(folder, ignore_errors=True)
    return old
