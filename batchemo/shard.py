"""A part of the media: what one of several machines takes when they share a folder and nobody hands out work."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Part `index` of `count`, from 1. Every medium is in exactly one of the `count` parts, told by its name alone."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"{self} must be part I of N, such as 2/8, with I from 1 to N")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Reads `I/N`. Raises ValueError that says how it is written."""
        parts = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if parts is None:
            raise ValueError("must be part I of N, such as 2/8")
        return cls(int(parts[1]), int(parts[2]))

    def holds(self, name: str) -> bool:
        """Whether the medium of that name is in this part. The same on every machine and with every version of Python."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1


def lock_name(shard: Shard | None) -> str:
    """The file in a results folder that a run of this part, or of all media, holds."""
    return ".batchemo.lock" if shard is None else f".batchemo.{shard.index}-of-{shard.count}.lock"


def rival_locks(out: Path, shard: Shard | None) -> list[Path]:
    """The locks in `out` of runs that could touch the same media: those that divide them otherwise, or not at all."""
    others = {lock_name(None)} if shard is not None else set()
    for path in out.glob(".batchemo.*-of-*.lock"):
        if shard is None or not path.name.endswith(f"-of-{shard.count}.lock"):
            others.add(path.name)
    return [out / name for name in sorted(others)]
