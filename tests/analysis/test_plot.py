"""Plots show the values of the tables, in the emotions' colours, on the given Axes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

import batchemo
from batchemo.errors import UsageError
from batchemo.palette import colours
from tests.analysis.test_statistics import track

NAME = "$a_b$ <i>.mp4"


@pytest.fixture(autouse=True)
def _no_window() -> Iterator[None]:
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    yield
    plt.close("all")


@pytest.fixture
def faces() -> pd.DataFrame:
    return pd.concat(
        [
            track(["happy"] * 20 + ["sad"] * 20, media=NAME),
            track(["neutral"] * 10, media=NAME, track_id=2),
            track(["neutral"] * 10, media=NAME, track_id=2, start_s=3),
        ],
        ignore_index=True,
    )


def colour_of(emotion: str) -> tuple[float, ...]:
    red, green, blue = colours((emotion,))[0]
    return to_rgb((red / 255, green / 255, blue / 255))


def test_a_timeline_has_a_lane_for_each_track(faces: pd.DataFrame) -> None:
    axes = batchemo.plot.timeline(faces)
    areas = axes.collections
    drawn = [tuple(np.asarray(area.get_facecolor())[0, :3]) for area in areas]
    assert drawn == [colour_of(name) for name in ("happy", "sad", "neutral", "neutral")]
    sides = [np.asarray(area.get_paths()[0].vertices)[:, 0] for area in areas]
    spans = [(side.min(), side.max()) for side in sides]
    assert [value for span in spans for value in span] == pytest.approx([0, 2, 2, 4, 0, 1, 3, 4])
    assert [text.get_text() for text in axes.get_yticklabels()] == ["#1", "#2"]
    assert axes.get_title(loc="left") == NAME
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["happy", "sad", "neutral"]
    axes.figure.canvas.draw()


def test_a_timeline_is_of_one_medium(faces: pd.DataFrame) -> None:
    several = pd.concat([faces, track(["sad"] * 5, media="b.mp4")])
    with pytest.raises(UsageError, match="the table holds 2"):
        batchemo.plot.timeline(several)
    with pytest.raises(UsageError, match=r"no medium 'c\.mp4'; did you mean 'b\.mp4'"):
        batchemo.plot.timeline(several, media="c.mp4")
    assert len(batchemo.plot.timeline(several, media="b.mp4").collections) == 1


def test_a_mix_is_a_bar_for_each_group(faces: pd.DataFrame) -> None:
    axes = batchemo.plot.mix(faces, by=["media", "track_id"])
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    widths = {tuple(bar.get_facecolor()[:3]): bar.get_width() for bar in bars if bar.get_width() > 0}
    assert widths == pytest.approx({colour_of("happy"): 0.5, colour_of("sad"): 0.5, colour_of("neutral"): 1.0})
    assert [text.get_text() for text in axes.get_yticklabels()] == [f"{NAME}, 1", f"{NAME}, 2"]
    axes.figure.canvas.draw()


def test_transitions_are_numbers_in_a_grid(faces: pd.DataFrame) -> None:
    import matplotlib.pyplot as plt

    given = plt.subplots()[1]
    axes = batchemo.plot.transitions(faces, ax=given)
    assert axes is given
    assert [(text.get_text(), text.get_position()) for text in axes.texts] == [("1", (1, 0))]
    assert [text.get_text() for text in batchemo.plot.transitions(faces, shares=True).texts] == ["100%"]


def test_nothing_is_drawn_of_nothing(faces: pd.DataFrame) -> None:
    nothing = faces.iloc[:0]
    for axes in (batchemo.plot.timeline(nothing), batchemo.plot.mix(nothing), batchemo.plot.transitions(nothing)):
        axes.figure.canvas.draw()


def test_without_matplotlib_the_command_that_installs_it_is_named() -> None:
    script = (
        "import sys\nsys.modules['matplotlib.pyplot'] = None\nimport batchemo, pandas as pd\n"
        "faces = pd.DataFrame({'media': ['a'], 'track_id': [1], 'time_s': [0.0], 'emotion': ['sad'], 'p_sad': [1.0]})\n"
        "try:\n    batchemo.plot.mix(faces)\nexcept batchemo.errors.UsageError as error:\n    print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert 'pip install "batchemo[plot]"' in ended.stdout
