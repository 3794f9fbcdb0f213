"""Drift: what differs from past runs is reported, and little else."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest

from batchemo.jobs.drift import _DEVIATIONS_OF_FEW, find_drift, usual_range
from batchemo.jobs.history import RunRecord
from batchemo.options import RunOptions


def work(*, faces: int, seconds: float, in_pictures: int = 25) -> dict[str, Any]:
    return {
        "video": {"media": 20, "bytes": 10**9, "faces": faces, "seconds": seconds},
        "image": {"media": 20, "bytes": 10**7, "faces": in_pictures, "seconds": 10.0},
    }


def facts(number: int = 0, **changes: Any) -> dict[str, Any]:
    """The run record of 20 videos and 20 pictures, a little different from each other one."""
    chance = random.Random(number)
    happy = 0.3 + chance.uniform(-0.02, 0.02)
    figures = {
        "media": 40 + chance.randint(-2, 2),
        "failed": 0,
        "hours": 2.0,
        "frames": 100_000,
        "faces": 50_000,
        "tracks": 80,
        "effective_tracks": 60.0,
        "emotions": {"happy": happy, "sad": 0.2, "neutral": 0.8 - happy},
        "confidence": 0.7 + chance.uniform(-0.01, 0.01),
        "uncertain": 0.25 + chance.uniform(-0.01, 0.01),
        "seconds": 900.0,
        "work": work(faces=50_000 + chance.randint(-1000, 1000), seconds=1500 + chance.uniform(-90, 90)),
    }
    figures |= changes
    return {
        "run_id": f"{number:04d}",
        "how": "done",
        "options": RunOptions().as_dict(),
        "weights": {"sha256": "abc"},
        "figures": figures,
    }


def past(count: int) -> list[RunRecord]:
    return [RunRecord(Path(), facts(number)) for number in range(count)]


def names(drift: Any) -> set[str]:
    return {finding.figure for finding in drift.findings}


@pytest.mark.parametrize("count", [5, 8, 15, 40])
def test_an_ordinary_run_has_nothing_unusual(count: int) -> None:
    found = find_drift(facts(1000), past(count))
    assert found.findings == ()
    assert found.note == ""
    assert found.runs == min(count, 30)


CHANGES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a camera is dark": (
        {"uncertain": 0.7, "confidence": 0.45},
        {"uncertain", "confidence"},
    ),
    "people are merry": (
        {"emotions": {"happy": 0.6, "sad": 0.2, "neutral": 0.2}},
        {"emotions.happy", "emotions.neutral"},
    ),
    "the camera shows the floor": (
        {"work": work(faces=900, seconds=1500, in_pictures=25)},
        {"faces_per_hour"},
    ),
    "pictures without faces": (
        {"work": work(faces=50_000, seconds=1500, in_pictures=2)},
        {"faces_per_picture"},
    ),
    "the machine is slow": (
        {
            "work": {
                "video": {"media": 20, "bytes": 1, "faces": 50_000, "seconds": 4000},
                "image": {"media": 20, "faces": 25, "seconds": 10},
            }
        },
        {"frames_per_second"},
    ),
    "files are broken": ({"failed": 9}, {"failed"}),
    "nothing came": (
        {
            **dict.fromkeys(("media", "hours", "frames", "faces", "tracks", "effective_tracks"), 0),
            **dict.fromkeys(("emotions", "confidence", "uncertain")),
            "work": {kind: {"media": 0, "bytes": 0, "faces": 0, "seconds": 0.0} for kind in ("video", "image")},
        },
        {"media"},
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_stands_out_is_named(what: str) -> None:
    changes, expected = CHANGES[what]
    found = find_drift(facts(1000, **changes), past(20))
    assert names(found) == expected
    for finding in found.findings:
        assert not finding.low <= finding.value <= finding.high
        assert finding.low <= finding.usual <= finding.high
        assert "usually" in finding.text
        assert "in 20 runs" in finding.text


def test_an_unusual_run_in_the_past_does_not_hide_the_next() -> None:
    runs = [*past(8), *(RunRecord(Path(), facts(50 + n, uncertain=0.9)) for n in range(2))]
    assert "uncertain" in names(find_drift(facts(1000, uncertain=0.9), runs))


def test_only_runs_that_can_be_compared_are() -> None:
    def others(change: Any) -> list[RunRecord]:
        found = copy.deepcopy(past(20))
        for record in found:
            change(record.facts)
        return found

    for change in (
        lambda f: f.update(how="Terminated"),
        lambda f: f.pop("figures"),
        lambda f: f.pop("how"),
        lambda f: f["weights"].update(sha256="other"),
        lambda f: f["options"].update(min_face_px=80),
        lambda f: f["options"].update(shard="1/2"),
        lambda f: f.update(run_id="1000"),
    ):
        found = find_drift(facts(1000, uncertain=0.9), others(change))
        assert (found.findings, found.runs) == ((), 0)
        assert "0 of the 5" in found.note
    assert find_drift(facts(1000, uncertain=0.9), others(lambda f: f["options"].update(workers=3))).findings


def test_metrics_of_too_little_are_left_out() -> None:
    few = {"effective_tracks": 3, "emotions": {"happy": 1.0}, "confidence": 0.3, "uncertain": 0.9, "hours": 0.001}
    assert names(find_drift(facts(1000, **few), past(20))) == set()
    mostly_uncertain = {"effective_tracks": 15, "uncertain": 0.9, "emotions": {"happy": 1.0}}
    assert names(find_drift(facts(1000, **mostly_uncertain), past(20))) == {"uncertain"}
    assert (
        names(find_drift(facts(1000, media=39, uncertain=0.9), [RunRecord(Path(), facts(n, effective_tracks=3)) for n in range(9)]))
        == set()
    )


def test_one_long_video_of_a_sad_man_is_no_drift() -> None:
    sad = {"emotions": {"happy": 0.1, "sad": 0.6, "neutral": 0.3}}
    assert names(find_drift(facts(1000, **sad, effective_tracks=5), past(20))) == set()
    assert "emotions.sad" in names(find_drift(facts(1000, **sad), past(20))), "of 60 people it is"


def test_small_differences_are_ignored_however_alike_the_runs_were() -> None:
    same = [RunRecord(Path(), facts(7) | {"run_id": str(n)}) for n in range(10)]
    tonight = facts(7, uncertain=facts(7)["figures"]["uncertain"] + 0.04)
    assert names(find_drift(tonight | {"run_id": "1000"}, same)) == set()


@pytest.mark.parametrize("count", [5, 6, 7, 10, 14, 19, 25])
def test_one_ordinary_value_in_a_hundred_is_beyond_the_range(count: int) -> None:
    chance = random.Random(count)
    draws = 6000
    beyond = 0
    for _ in range(draws):
        low, high = usual_range([chance.gauss(0, 1) for _ in range(count)], floor=0.0)[1:]
        beyond += not low <= chance.gauss(0, 1) <= high
    # Of 6000 draws 60 +- 4 standard deviations; with 20 runs and more the share falls below one in a hundred.
    assert (29 if count < 20 else 15) <= beyond <= 91
    assert count >= 20 or len(_DEVIATIONS_OF_FEW) > count - 5


def test_quiet_sundays_are_usual_after_two_of_them_but_a_quiet_weekday_is_not() -> None:
    chance = random.Random(0)
    counts = [0 if day % 7 == 6 else chance.randint(18, 22) for day in range(70)]
    runs = [RunRecord(Path(), facts(day, media=count)) for day, count in enumerate(counts)]
    reported = [day for day in range(70) if "media" in names(find_drift(runs[day].facts, runs[:day]))]
    assert set(reported) <= {6, 13}
    lonely = [RunRecord(Path(), facts(day, media=0 if day == 9 else 20 + day % 3)) for day in range(30)]
    assert "media" in names(find_drift(facts(1000, media=0), lonely)), "it has happened once"


def test_a_value_just_outside_its_range_is_not_rounded_to_the_limit() -> None:
    runs = past(10)
    (finding,) = find_drift(facts(1000, failed=5, media=41), runs).findings
    assert finding.text.startswith("share of failed media: 12%, usually 0% (0% to 10%")
    (finding,) = find_drift(facts(1000, failed=4, media=39), runs).findings
    assert finding.text.startswith("share of failed media: 10.3%, usually 0.0% (0.0% to 10.0%")
    assert "failed" not in names(find_drift(facts(1000, failed=1, media=10), runs)), "one is named, and no drift"
