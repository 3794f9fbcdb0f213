"""Mutations that break a file; a seed decides each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

Mutation = Callable[[bytearray, random.Random], bytes]

_HEAD = 512
_EXTREMES = (0, 1, 2, 0x7FFF, 0xFFFF, 60_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1_000_000_000)
_PARENTS = frozenset((b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"dinf"))


def truncated(content: bytearray, random: random.Random) -> bytes:
    return bytes(content[: random.randrange(len(content))])


def truncated_a_little(content: bytearray, random: random.Random) -> bytes:
    return bytes(content[: -random.randrange(1, min(200, len(content)))])


def headless(content: bytearray, random: random.Random) -> bytes:
    return bytes(content[random.randrange(1, min(_HEAD, len(content))) :])


def bits_of_the_header(content: bytearray, random: random.Random) -> bytes:
    return _flipped(content, random, 0, min(_HEAD, len(content)), random.randrange(1, 9))


def bits_of_the_payload(content: bytearray, random: random.Random) -> bytes:
    return _flipped(content, random, min(_HEAD, len(content) // 2), len(content), random.randrange(1, 200))


def bits_of_the_end(content: bytearray, random: random.Random) -> bytes:
    """There MP4 has its index unless it was moved to the front."""
    return _flipped(content, random, len(content) * 9 // 10, len(content), random.randrange(1, 30))


def zeros(content: bytearray, random: random.Random) -> bytes:
    start, end = _range(content, random)
    content[start:end] = bytes(end - start)
    return bytes(content)


def noise(content: bytearray, random: random.Random) -> bytes:
    start, end = _range(content, random)
    content[start:end] = random.randbytes(end - start)
    return bytes(content)


def without_a_part(content: bytearray, random: random.Random) -> bytes:
    start, end = _range(content, random)
    del content[start:end]
    return bytes(content)


def with_a_part_twice(content: bytearray, random: random.Random) -> bytes:
    start, end = _range(content, random)
    return bytes(content[:end] + content[start:])


def extreme_numbers(content: bytearray, random: random.Random) -> bytes:
    """Writes absurd sizes, counts, widths and heights, big- and little-endian."""
    for _ in range(random.randrange(1, 4)):
        place = random.randrange(max(1, min(4 * _HEAD, len(content) - 4)))
        width = random.choice((2, 4))
        value = random.choice(_EXTREMES) % 2 ** (8 * width)
        content[place : place + width] = value.to_bytes(width, random.choice(("big", "little")))
    return bytes(content)


def swapped_boxes(content: bytearray, random: random.Random) -> bytes:
    """Swaps two neighbouring boxes of an MP4; in other files two parts of equal size."""
    siblings = [group for group in _families(bytes(content)) if len(group) > 1]
    if not siblings:
        half = len(content) // 2
        return bytes(content[half:] + content[:half])
    group = random.choice(siblings)
    first = random.randrange(len(group) - 1)
    (a, b), (_, c) = group[first], group[first + 1]
    return bytes(content[:a] + content[b:c] + content[a:b] + content[c:])


def wrong_sizes(content: bytearray, random: random.Random) -> bytes:
    """Changes the size of an MP4 box; in other files any number."""
    boxes = [box for group in _families(bytes(content)) for box in group]
    if not boxes:
        return extreme_numbers(content, random)
    start, end = random.choice(boxes)
    size = random.choice((*_EXTREMES, end - start - 1, end - start + 1, end - start + 8, 2 * (end - start)))
    content[start : start + 4] = (size % 2**32).to_bytes(4, "big")
    return bytes(content)


def no_samples(content: bytearray, random: random.Random) -> bytes:
    """Claims durations of zero, or a billion frames."""
    for name in (b"stsz", b"stts", b"stco", b"stsc"):
        place = content.find(name)
        if place > 0 and random.random() < 0.6:
            at = place + (12 if name == b"stsz" else 8)
            content[at : at + 4] = random.choice((0, 1, 1_000_000_000)).to_bytes(4, "big")
    return bytes(content)


def no_content(content: bytearray, random: random.Random) -> bytes:
    return bytes(content[: random.choice((0, 1, 4, 8, 12, 16, 32))])


MUTATIONS: tuple[Mutation, ...] = (
    *(truncated, truncated_a_little, headless, bits_of_the_header, bits_of_the_payload, bits_of_the_end, zeros, noise),
    *(without_a_part, with_a_part_twice, extreme_numbers, swapped_boxes, wrong_sizes, no_samples, no_content),
)


def _range(content: bytearray, random: random.Random) -> tuple[int, int]:
    start = random.randrange(len(content))
    return start, min(len(content), start + random.randrange(1, max(2, len(content) // 4)))


def _flipped(content: bytearray, random: random.Random, start: int, end: int, count: int) -> bytes:
    for _ in range(count):
        content[random.randrange(start, end)] ^= 1 << random.randrange(8)
    return bytes(content)


def _families(content: bytes) -> Iterator[list[tuple[int, int]]]:
    """Boxes of an ISO base media file (start, end), those of one parent together."""
    if content[4:8] not in (b"ftyp", b"moov", b"mdat"):
        return
    waiting = [(0, len(content))]
    while waiting:
        place, end = waiting.pop()
        group = []
        while place + 8 <= end:
            size = int.from_bytes(content[place : place + 4], "big")
            if not 8 <= size <= end - place:
                break
            group.append((place, place + size))
            if content[place + 4 : place + 8] in _PARENTS:
                waiting.append((place + 8, place + size))
            place += size
        yield group
