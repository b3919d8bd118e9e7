"""README and docs stay true where a test can hold them to the code."""

from __future__ import annotations

import re
from pathlib import Path

import architecture_tree
from typer.testing import CliRunner

from lmmcl.cli import app

REPOSITORY = Path(__file__).parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_every_module_says_what_it_is_for() -> None:
    modules = [path for path in (REPOSITORY / "lmmcl").rglob("*.py") if path.name != "__init__.py"]
    assert len(modules) >= 100
    assert not [str(path) for path in modules if not architecture_tree.purpose(path)]


def test_the_tree_of_the_architecture_page_is_the_tree_as_it_is() -> None:
    assert architecture_tree.written() == architecture_tree.tree(), "run: python tests/architecture_tree.py"


def test_every_link_to_a_file_leads_somewhere() -> None:
    links = [(page, target) for page in PAGES for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert not [(page.name, target) for page, target in links if not (page.parent / target).exists()]


def test_every_command_that_readme_and_docs_show_exists() -> None:
    shown = {words.split()[0] for page in PAGES for words in re.findall(r"`lmmcl ([a-z][^`]*)`", page.read_text())}
    listed = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    assert len(shown) >= 10
    assert all(re.search(rf"\b{word}\b", listed) for word in shown), shown
