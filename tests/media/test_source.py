"""Decoding ahead in a thread: the same items in order, never too many of them, and no work after the consumer stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchemo.media.source import prefetch


@given(items=st.lists(st.none() | st.integers()), most=st.integers(1, 20))
def test_the_same_items_in_their_order(items: list[int | None], most: int) -> None:
    assert list(prefetch(items, max_ahead=most)) == items


def test_a_thread_computes_up_to_the_limit_ahead() -> None:
    made: list[int] = []
    makers: set[int] = set()

    def make() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            makers.add(threading.get_ident())
            yield number

    items = prefetch(make(), max_ahead=5)
    for number in items:
        assert len(made) <= number + 1 + 5
        if number == 50:
            time.sleep(0.1)
            assert len(made) == 56
    assert len(made) == 100
    assert len(makers) == 1
    assert threading.get_ident() not in makers


def test_exceptions_are_raised_in_their_place() -> None:
    def make() -> Iterator[int]:
        yield from range(3)
        raise OSError("the drive has gone")

    items = prefetch(make(), max_ahead=8)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="the drive has gone"):
        next(items)


def test_closing_the_iterator_stops_the_thread() -> None:
    made: list[int] = []

    def make() -> Iterator[int]:
        for number in range(1000):
            time.sleep(0.001)
            made.append(number)
            yield number

    before = threading.active_count()
    items = prefetch(make(), max_ahead=3)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
    known = len(made)
    assert known <= 5
    time.sleep(0.02)
    assert len(made) == known
