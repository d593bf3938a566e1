"""A run in a real kernel: shown while later cells run, and awaited in one of them."""

import io
from contextlib import redirect_stdout

import nbformat
import pytest
from nbclient import NotebookClient

from talkgen import notebook

WAITING = """
import anyio, numpy as np
from IPython.display import DisplayHandle
from talkgen import MemoryStorage, Pipeline, ProgressTracker

class Waiting:
    name = key = "waiting"
    weight = 1.0
    requires = provides = resets = frozenset()
    async def run(self, draft, context):
        await told.wait()  # what a kernel says between two cells, this client does not hear
        context.report(0.5, "Half <way>")
        context.preview(draft.image)
        await go.wait()
        if broken:
            raise ValueError("torn")
        return draft

shown, update = [], DisplayHandle.update

def recording(self, data, **options):
    update(self, data, **options)
    shown.append(data["text/html"])

async def until(text):
    while not any(text in page for page in shown):
        await anyio.sleep(0.01)

DisplayHandle.update = recording
told, go, broken = anyio.Event(), anyio.Event(), False
pipeline = await Pipeline.open(
    [Waiting()],
    storage=MemoryStorage(),
    tracker=ProgressTracker(heartbeat=0.01),
    previews=True,
)
"""
START = "run = pipeline.start(np.full((8, 8, 3), 128, np.uint8), task_id='t')\nrun"


def executed(*cells, folder):
    """The outputs of each cell, as HTML where they have it, after all of them ran."""
    cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    page = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(page, timeout=90, resources={"metadata": {"path": str(folder)}})
    states = []
    client.on_cell_executed = lambda **_: states.append(html_of(page.cells[1]))
    client.execute()
    return page, states


def html_of(cell):
    return [output["data"].get("text/html", "") for output in cell.outputs if "data" in output]


@pytest.fixture
def kernel(monkeypatch, tmp_path):
    """A kernel's settings are nobody's but this test's."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    return tmp_path


@pytest.mark.integration
def test_a_run_is_shown_while_later_cells_run_and_awaited_two_cells_later(kernel):
    page, states = executed(
        WAITING,
        START,
        "told.set()\nawait until('data:image/jpeg')\nawait anyio.sleep(0.1)\n"
        "assert not any('keepalive' in page for page in shown)",
        "go.set()\nresult = await run\nawait until('>completed</td>')\nresult.task_id",
        "await pipeline.aclose()",
        folder=kernel,
    )
    assert page.cells[3].outputs[0]["data"]["text/plain"] == "'t'"
    assert len(page.cells[1].outputs) == 1
    assert "<progress" in states[1][0]
    assert "Half &lt;way&gt;" in states[2][0]  # while the third cell ran
    assert "data:image/jpeg" in states[2][0]
    assert ">completed</td>" in states[3][0]
    assert "<progress" not in states[3][0]


@pytest.mark.integration
def test_a_run_that_has_ended_is_shown_as_what_it_came_to(kernel):
    page, _ = executed(
        WAITING + "\ntold.set()\ngo.set()",
        START.removesuffix("run") + "await run\nrun",
        "broken = True\nrun = pipeline.start(np.full((8, 8, 3), 128, np.uint8), task_id='u')",
        "try:\n    await run\nexcept Exception:\n    pass\nrun",
        folder=kernel,
    )
    assert [">completed</td>" in shown for shown in html_of(page.cells[1])] == [True]
    assert ["torn" in shown for shown in html_of(page.cells[3])] == [True]


@pytest.mark.integration
def test_a_run_that_failed_says_so_where_it_was_shown(kernel):
    _, states = executed(
        WAITING,
        START,
        "broken = True\ntold.set()\ngo.set()\nawait until('color:#c22')",
        "await pipeline.aclose()",
        folder=kernel,
    )
    assert "torn" in states[2][0]


def test_elsewhere_a_run_is_printed():
    class Run:
        def __repr__(self):
            return "<Run t: new>"

    said = io.StringIO()
    with redirect_stdout(said):
        notebook.show(Run(), None)
    assert said.getvalue() == "<Run t: new>\n"
