"""docs/mnist_with_ray.ipynb runs, and what it shows is small, in order and of no one's machine."""

from __future__ import annotations

import json
import re
import socket
import sys
from pathlib import Path

import nbformat
import pytest

from docs.make import notebook as twin
from tests.kit.doc_commands import ROOT

# The original's, at commit 5e1340f; docs/results/notebook_published.json names it.
ORIGINAL_CELLS = 60
MAX_BYTES = 300_000


@pytest.fixture(scope="module")
def kept() -> nbformat.NotebookNode:
    return nbformat.read(twin.TWIN, as_version=4)


@pytest.fixture(scope="module")
def executed(tmp_path_factory, mnist) -> nbformat.NotebookNode:
    return twin.executed(tmp_path_factory.mktemp("twin"), limit_train=1000, epochs=1)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def shown(notebook: nbformat.NotebookNode) -> str:
    return json.dumps([cell.outputs for cell in code_cells(notebook)])


def kinds(cell: nbformat.NotebookNode) -> set[str]:
    """What kinds of output a cell has."""
    return {kind for output in cell.outputs for kind in output.get("data", {"text": 0})}


def test_it_does_the_same_in_a_third_of_the_cells(kept):
    nbformat.validate(kept)
    assert len(kept.cells) <= ORIGINAL_CELLS / 3


def test_it_runs(executed, kept):
    text = shown(executed)
    for said in ("48,000 training", "5 0 4 1 9 2 1 3 1 4", "669,706", "303,626", "of 10,000 right"):
        assert said in text
    # The same cells show the same kinds of things, with all rows and with few.
    assert [kinds(a) for a in code_cells(executed)] == [kinds(b) for b in code_cells(kept)]


def test_what_is_kept_is_of_one_run_from_the_first_cell_to_the_last(kept):
    counts = [cell.execution_count for cell in code_cells(kept)]
    assert counts == list(range(1, len(counts) + 1))
    assert "error" not in {output.output_type for c in code_cells(kept) for output in c.outputs}


def test_what_is_kept_is_of_whole_trainings(kept):
    accuracies = re.findall(r"test accuracy ([\d.]+)%", shown(kept))
    assert len(accuracies) == 2
    assert all(float(accuracy) > 98 for accuracy in accuracies)


def test_it_is_small_and_names_no_machine(kept):
    text = twin.TWIN.read_text()
    assert len(text) < MAX_BYTES
    assert not re.search(r"[\"' (](/[a-z]+){2,}", "".join(re.findall(r'"text": .*', text)))
    # A picture's letters may spell any short name.
    words = re.sub(r'"image/png": "[^"]*"', "", text)
    for own in (str(Path.home()), str(ROOT), socket.gethostname(), sys.prefix):
        assert not re.search(rf"(?<!\w){re.escape(own)}(?!\w)", words)
    assert set(kept.metadata) == {"kernelspec", "language_info"}
