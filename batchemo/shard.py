"""A part of the media: what one of several machines takes when they share a folder and nobody hands out work."""

from __future__ import annotations

import dataclasses
import hashlib
import re


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
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.index - 1
