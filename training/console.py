"""What training says to people: lines on stderr."""

from __future__ import annotations

import sys


def say(message: str) -> None:
    """One line on stderr, with no control characters: names of files may hold any."""
    print("".join(character if character.isprintable() else "?" for character in message), file=sys.stderr, flush=True)
