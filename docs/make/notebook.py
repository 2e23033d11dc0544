"""docs/mnist_with_ray.ipynb: runs it from its first cell to its last, and keeps what it shows.

python -m docs.make.notebook     # about three minutes; it trains both models with the quick recipe
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

TWIN = Path(__file__).parents[2] / "docs" / "mnist_with_ray.ipynb"


def executed(folder: Path, **settings: Any) -> nbformat.NotebookNode:
    """The notebook with the outputs of a fresh kernel.

    Args:
        folder: Where the kernel works; runs are kept below it.
        settings: Those of a run, over the recipes.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook = nbformat.read(TWIN, as_version=4)
    # Sockets in a folder of one's own, not ports that everybody on the machine can reach.
    manager = AsyncKernelManager(
        kernel_name="python3", transport="ipc", connection_file=str(folder / "kernel.json")
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=600,
        # When each cell ran is of no interest.
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    try:
        client.execute(env={**os.environ, "NOTEBOOK_SETTINGS": json.dumps(settings)})
    finally:
        # The client ends only managers that it made itself.
        asyncio.run(manager.shutdown_kernel(now=True))
    # The kernel adds its own version, which says nothing about the results.
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        nbformat.write(executed(Path(folder)), TWIN)


if __name__ == "__main__":
    main()
