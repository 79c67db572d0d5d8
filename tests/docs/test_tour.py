"""The notebook runs from top to bottom, and its outputs are small."""

import shutil

import pytest
from support.pages import ROOT

TOUR = ROOT / "docs" / "tour.ipynb"


@pytest.mark.long
@pytest.mark.slow
def test_tour_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", "")
    notebook = nbformat.read(TOUR, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "(2, 16, 16, 2) int32" in printed
    assert sum("image/jpeg" in output.get("data", {}) for output in outputs) == 4
    assert (tmp_path / "runs/tour/generator/model.json").exists()
    shutil.rmtree(tmp_path / "runs")


def test_outputs_are_small():
    assert TOUR.stat().st_size < 400_000
