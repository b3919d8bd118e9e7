"""Execute docs/notebook.ipynb from a fresh kernel: `python tests/notebook.py STORE [--write]`; with `--write`, keep its outputs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def execute(store: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of its cells; raises CellExecutionError, with the traceback, for a cell that fails."""
    os.environ["LMMCL_STORE"] = str(store)  # the kernel inherits it
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    return NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()


def keep(executed: nbformat.NotebookNode, store: str) -> None:
    """Write the notebook with its outputs, without what only this machine has: times of day, warnings, the store's path."""
    for cell in executed.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    executed.metadata["language_info"] = {"name": "python"}
    NOTEBOOK.write_text(nbformat.writes(executed).replace(store, "lmmcl-store") + "\n", encoding="utf-8")


if __name__ == "__main__":
    executed = execute(Path(sys.argv[1]).absolute())
    if "--write" in sys.argv[2:]:
        keep(executed, str(Path(sys.argv[1]).absolute()))
    print(f"{NOTEBOOK.name}: {sum(cell.cell_type == 'code' for cell in executed.cells)} cells executed")
