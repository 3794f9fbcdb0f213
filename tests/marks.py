"""Which tests are what: `pytest -m` selects by these marks. Single tests of other modules carry `slow` themselves."""

from __future__ import annotations

import pytest

MARKS = {
    "dask": ("run/test_dask.py",),
    "process": (
        "cli/test_benchmark.py",
        "cli/test_first_minutes.py",
        "cli/test_streams.py",
        "jobs/test_job_run.py",
        "run/",
        "test_notebooks.py",
        "test_portability.py",
        "test_readme.py",
    ),
    "media": ("media/", "pipeline/", "render/", "test_player_clock.py", "test_sample_media.py", "test_samples.py", "verify/"),
    "processor": (
        "emotion/",
        "faces/test_cascade.py",
        "faces/test_detector.py",
        "faces/test_nms.py",
        "faces/test_prefilter.py",
        "faces/test_pyramid.py",
        "faces/test_reid.py",
        "test_processors.py",
        "training/fit/test_checkpoint.py",
    ),
}
"""Folders and modules below tests/, by mark."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        path = item.nodeid.partition("::")[0].removeprefix("tests/")
        for mark, places in MARKS.items():
            if path.startswith(places):
                item.add_marker(mark)
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
