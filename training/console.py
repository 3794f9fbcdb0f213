"""Prints messages on stderr."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """Prints one line to stderr. Control characters, which file names may hold, become question marks."""
    print("".join(character if character.isprintable() else "?" for character in message), file=sys.stderr, flush=True)
