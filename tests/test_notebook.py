"""The notebook of the docs: it uses names that exist, was kept with its outputs, and holds nothing of the machine that ran it.

`python tests/notebook.py STORE` executes it, as `.ci/run` does.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import lmmcl

NOTEBOOK = json.loads((Path(__file__).parents[1] / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
CODE = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_every_name_that_the_notebook_takes_from_the_package_is_public() -> None:
    source = "\n".join("".join(cell["source"]) for cell in CODE)
    used = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lmmcl"
    }
    assert {"load_sweep", "make_sweep", "plan", "run", "load_model", "load_processor"} <= used <= set(lmmcl.__all__)


def test_the_notebook_is_kept_with_its_outputs_and_without_errors() -> None:
    assert len(CODE) >= 10
    assert [cell["execution_count"] for cell in CODE] == list(range(1, len(CODE) + 1))
    kinds = {output["output_type"] for cell in CODE for output in cell["outputs"]}
    assert "error" not in kinds and "execute_result" in kinds


def test_the_outputs_hold_no_path_of_the_machine_that_made_them() -> None:
    texts = [text for cell in CODE for output in cell["outputs"] for text in _texts(output)]
    assert texts and not [text for text in texts if re.search(r"(?<![\w.])/(tmp|home|work|root|usr)/", text)]


def _texts(output: dict) -> list[str]:
    data = output.get("data", {})
    return ["".join(output.get("text", ""))] + [
        "".join(data[kind]) for kind in ("text/plain", "text/html") if kind in data
    ]
