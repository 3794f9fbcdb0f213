"""Regions of interest are disjoint, and cover all that has changed and all known faces."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from batchemo.faces.regions import FULL_SEARCH_EVERY, Region, RegionFinder

NO_FACE = np.empty((0, 4))

sides = st.integers(60, 400)
shares = st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0.02, 0.3))


def box(share: tuple[float, float, float], height: int, width: int) -> NDArray[np.float64]:
    """A square whose left upper corner and side are shares of the picture's."""
    left, top, side = share[0] * width, share[1] * height, share[2] * min(height, width)
    return np.array([left, top, left + side, top + side])


def covered(regions: list[Region], shape: tuple[int, int]) -> NDArray[np.int_]:
    """How many regions each pixel lies in."""
    counts = np.zeros(shape, int)
    for left, top, right, bottom in regions:
        assert 0 <= left < right <= shape[1]
        assert 0 <= top < bottom <= shape[0]
        counts[top:bottom, left:right] += 1
    return counts


@settings(max_examples=60, deadline=None)
@given(sides, sides, st.lists(shares, max_size=4), st.lists(shares, max_size=4))
def test_what_has_changed_and_what_is_known_is_searched_once(
    height: int, width: int, changes: list[tuple[float, float, float]], known: list[tuple[float, float, float]]
) -> None:
    before = np.full((height, width), 90, np.uint8)
    after = before.copy()
    wanted = np.zeros((height, width), bool)
    for share in changes:
        left, top, right, bottom = box(share, height, width).astype(int)
        after[top:bottom, left:right] = 200
        if min(right - left, bottom - top) >= 10:  # a smaller spot may be lost in the mean of a cell
            wanted[top:bottom, left:right] = True
    boxes = np.array([box(share, height, width) for share in known]).reshape(-1, 4)
    for left, top, right, bottom in boxes.astype(int):
        wanted[top:bottom, left:right] = True
    finder = RegionFinder()
    finder.reset(before)
    regions = finder.find(after, boxes)
    if regions is None:
        return
    counts = covered(regions, before.shape)
    assert counts.max(initial=0) <= 1
    assert (counts[wanted] == 1).all()


def test_where_nothing_has_changed_nothing_is_searched_but_the_whole_now_and_then() -> None:
    picture = np.full((360, 640), 90, np.uint8)
    finder = RegionFinder()
    searches = [finder.find(picture, NO_FACE) for _ in range(3 * FULL_SEARCH_EVERY)]
    assert searches == list(itertools.islice(itertools.cycle([None, *[[]] * (FULL_SEARCH_EVERY - 1)]), len(searches)))


def test_noise_is_no_change() -> None:
    noise = np.random.default_rng(0).normal(100, 5, (2, 360, 640)).clip(0, 255).astype(np.uint8)
    finder = RegionFinder()
    finder.reset(noise[0])
    assert finder.find(noise[1], NO_FACE) == []


def test_what_changes_slowly_is_searched_as_well() -> None:
    finder = RegionFinder()
    finder.reset(np.full((360, 640), 90, np.uint8))
    picture = np.full((360, 640), 90, np.uint8)
    found = []
    for grey in (91, 93, 96):
        picture[160:240, 80:160] = grey
        found.append(finder.find(picture, NO_FACE))
    assert found[:2] == [[], []]
    assert found[2]
    assert covered(found[2], picture.shape)[160:240, 80:160].all()


def test_a_picture_that_changes_all_over_or_in_size_is_searched_whole() -> None:
    finder = RegionFinder()
    finder.reset(np.full((360, 640), 90, np.uint8))
    assert finder.find(np.full((360, 640), 120, np.uint8), NO_FACE) is None
    assert finder.find(np.full((180, 320), 120, np.uint8), NO_FACE) is None
