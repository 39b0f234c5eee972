"""The notebook of the examples runs from top to bottom, and its outputs stay what they are."""

import os
import pathlib
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILE = ROOT / "examples" / "notebook.ipynb"

pytestmark = pytest.mark.notebooks


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """The cells of code of the executed notebook."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(FILE, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = nbclient.NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources=resources
    )
    # FORCE_COLOR: rich takes any output for a terminal, as in some services.
    client.execute(
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
            "FORCE_COLOR": "1",
        }
    )
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs_of(cells: list[Any], source: str) -> list[Any]:
    """Return the outputs of the one cell whose code has a text."""
    (cell,) = [cell for cell in cells if source in cell.source]
    return list(cell.outputs)


def test_the_stored_notebook_has_no_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(FILE, as_version=4)
    assert not [cell for cell in notebook.cells if cell.get("outputs")]


def test_no_error_no_warning_and_no_widget(cells: list[Any]) -> None:
    for output in (output for cell in cells for output in cell.outputs):
        assert output.output_type in ("display_data", "execute_result"), output
        assert set(output.data) <= {"text/html", "text/plain", "image/png"}, output


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        ("store.add(", ["SampleStore", "waiting", "7"]),
        ("display(batch)", ["Batch", "2 samples, open"]),
        ("environment\n", ["Environment: 20 iterations", "PredictiveBuffer"]),
        ("buffer.store.predictors()", ["rank_correlation"]),
        ("store.failed()", ["no parameters for boron"]),
        ("store.to_pandas(", ["measured", "failed"]),
    ],
)
def test_objects_are_tables(cells: list[Any], source: str, texts: list[str]) -> None:
    (cell,) = [cell for cell in cells if source in f"{cell.source}\n"]
    shown = cell.outputs[0].data["text/html"]
    assert "<table" in shown
    assert [text for text in texts if text not in shown] == []


def test_a_measurement_and_a_fit_leave_one_table(cells: list[Any]) -> None:
    measured, result = outputs_of(cells, "store.measure(")
    assert measured.data["text/html"].count("<table>") == 1
    assert measured.data["text/plain"] == "measuring default"
    assert "measured=5, failed=2" in result.data["text/plain"]
    (fitted,) = outputs_of(cells, "environment.fit(")
    assert fitted.data["text/plain"].startswith("20 of 20 iterations")
    assert fitted.data["text/html"].count("<tr>") == 1 + 5


def test_a_plot_is_a_picture(cells: list[Any]) -> None:
    (plot,) = outputs_of(cells, "plot_metrics(")
    assert len(plot.data["image/png"]) > 1_000
