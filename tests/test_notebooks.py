"""The notebooks of the documentation run, from a folder like theirs."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

DOCS = Path(__file__).parent.parent / "docs"
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """A copy to write into, and a kernel's settings that are nobody's."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.delenv("D_ID_API_KEY", raising=False)
    for part in ("assets/demo", "notebooks"):
        shutil.copytree(DOCS / part, tmp_path / part)
    return tmp_path


def outputs(page):
    return [output for cell in page.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(path):
    page = nbformat.read(path, as_version=4)
    nbformat.validate(page)
    assert not outputs(page)


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", [path.name for path in NOTEBOOKS])
def test_notebook_runs_and_ends_in_a_video(name, docs):
    path = docs / "notebooks" / name
    page = nbformat.read(path, as_version=4)
    NotebookClient(page, timeout=300, resources={"metadata": {"path": str(path.parent)}}).execute()
    shown = outputs(page)
    assert not [output for output in shown if output.output_type == "error"]
    assert not [output for output in shown if output.get("name") == "stderr"]
    pages = "".join(output["data"].get("text/html", "") for output in shown if "data" in output)
    assert '<video controls src="data:video/mp4;base64,' in pages
    assert 'poster="data:image/jpeg;base64,' in pages
