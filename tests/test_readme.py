"""The README stays true where a test can hold it to the code."""

from __future__ import annotations

import re
from pathlib import Path

from typer.testing import CliRunner

from lmmcl.cli import app

REPOSITORY = Path(__file__).parents[1]
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
TREE = README.split("## Where things are")[1].split("## How to add")[0]


def test_the_tree_names_every_module_with_a_purpose_after_it() -> None:
    modules = [path.name for path in (REPOSITORY / "lmmcl").rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) >= 100
    missing = [name for name in modules if not re.search(rf"^\s*{re.escape(name)}\s+\S", TREE, re.MULTILINE)]
    assert not missing


def test_the_tree_names_no_module_that_is_gone() -> None:
    there = {path.name for path in REPOSITORY.rglob("*.py")}
    assert set(re.findall(r"^\s*(\w+\.py)", TREE, re.MULTILINE)) <= there


def test_every_command_that_the_readme_shows_exists() -> None:
    shown = {words.split()[0] for words in re.findall(r"`lmmcl ([a-z][^`]*)`", README)}
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert len(shown) >= 10
    assert all(re.search(rf"\b{word}\b", listed) for word in shown), shown
