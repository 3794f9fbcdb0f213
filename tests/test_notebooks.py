"""The notebooks run from top to bottom, and hold no outputs: pictures of people do not get into the repository by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from batchemo.analysis.export.formats import export_results
from batchemo.errors import UsageError
from batchemo.options import merge_options
from batchemo.results.schema import FRAMES, write_table
from batchemo.run.run import RunCallbacks, run_media

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = REPOSITORY / "training" / "notebooks"
ALL = [*NOTEBOOKS.glob("*.ipynb"), *(REPOSITORY / "batchemo" / "notebooks").glob("*.ipynb")]
SAMPLES = REPOSITORY / "sample_media"


def execute(path: Path) -> dict[str, list[str]]:
    """Runs a notebook as Jupyter does beside it; the text that its cells print, and the types of what they show."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
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
    found = execute(NOTEBOOKS / "from_data_to_network.ipynb")
    text = "".join(found["text"])
    accuracy = float(text.split("accuracy ")[1].split("%")[0])
    assert 50 < accuracy < 99  # it has learnt, and there are mistakes to look at
    assert "that it was surest of" in text
    assert found["shown"].count("image/png") == 7


@pytest.mark.parametrize("names", [("grace_hopper.jpg", "two_people_and_a_cut.mp4"), ("eileen_collins.jpg",)])
def test_an_analysis_opens_on_the_users_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, names: tuple[str, ...]) -> None:
    results = tmp_path / 'the user\'s "results"'
    silent = RunCallbacks(started=lambda _plan, _heartbeats: None, finished=lambda _row: None)
    media = [SAMPLES / name for name in names]
    run_media(media, results, merge_options({"workers": 1, "sample_fps": 4.0, "annotate": False}, environment={}), silent)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    (notebook,) = export_results(results, "notebook").files
    found = execute(notebook)
    assert found["shown"].count("image/png") == 4
    assert found["shown"].count("text/html") == 6
    assert "faces are at least 48 pixels large and certain" in "".join(found["text"])


def test_a_notebook_with_somebodys_work_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    write_table(FRAMES.empty_table(), tmp_path / "frames" / "a.mp4.parquet")
    (notebook,) = export_results(tmp_path, "notebook").files
    notebook.write_text("my work")
    with pytest.raises(UsageError, match="may hold your work"):
        export_results(tmp_path, "notebook")
    assert notebook.read_text() == "my work"


@pytest.mark.parametrize("path", sorted(ALL), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not [cell for cell in cells if cell.cell_type == "code" and (cell.outputs or cell.execution_count)]
    assert [cell.cell_type for cell in cells].count("markdown") >= 8
