"""The page's own scripts in Node, without a browser: what they compute is compared with what the report computes."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from importlib import resources
from typing import Any

NODE = shutil.which("node")
STAND_INS = """
const told = {textContent: TEXT};
globalThis.document = {getElementById: () => told, documentElement: {dataset: {}}};
globalThis.location = {hash: ""};
globalThis.window = {matchMedia: () => ({matches: false})};
"""


def evaluate(data: dict[str, Any], scripts: Sequence[str], expression: str) -> Any:
    """The value of a JavaScript expression after `scripts` of the page, which show `data`."""
    files = resources.files("lmmcl.reports.page") / "page_files"
    parts = [(files / name).read_text(encoding="utf-8") for name in scripts]
    code = STAND_INS.replace("TEXT", json.dumps(json.dumps(data))) + "\n".join(parts)
    code += f"\nconsole.log(JSON.stringify({expression}));"
    done = subprocess.run([str(NODE), "-"], input=code, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)
