"""The notebooks run from top to bottom, and hold no outputs: pictures of people do not get into the repository by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from batchemo.options import merge_options
from batchemo.run import Watch
from batchemo.run import run as run_media

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = REPOSITORY / "training" / "notebooks"
SAMPLES = REPOSITORY / "sample_media"


def execute(name: str, folder: Path) -> dict[str, list[str]]:
    """Runs a notebook as Jupyter started in `folder`; the text that its cells print, and the types of what they show."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}).execute()
    outputs: list[Any] = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.get("name") == "stderr"], "warnings that a reader would stumble over"
    return {
        "text": [output.text for output in outputs if output.output_type == "stream"],
        "shown": [kind for output in outputs for kind in output.get("data", {})],
    }


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_from_data_to_a_network_that_has_learnt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FER2013", raising=False)
    found = execute("from_data_to_network", NOTEBOOKS)
    text = "".join(found["text"])
    accuracy = float(text.split("accuracy ")[1].split("%")[0])
    assert 50 < accuracy < 99  # it has learnt, and there are mistakes to look at
    assert "that it was surest of" in text
    assert found["shown"].count("image/png") == 7


def test_an_analysis_of_a_timeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    results = tmp_path / "results"
    silent = Watch(started=lambda _plan, _pulses: None, finished=lambda _row: None)
    media = [SAMPLES / name for name in ("grace_hopper.jpg", "two_people_and_a_cut.mp4")]
    run_media(media, results, merge_options({"workers": 1, "sample_fps": 4.0, "annotate": False}, environment={}), silent)
    monkeypatch.setenv("BATCHEMO_RESULTS", str(results))
    found = execute("emotion_timeline", REPOSITORY)
    assert found["shown"].count("image/png") == 4
    assert found["shown"].count("text/html") == 5
    assert "faces are at least 48 pixels large and certain" in "".join(found["text"])


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert [cell.cell_type for cell in cells].count("markdown") >= 8
