"""The tree of docs/architecture.md, made from the modules' first lines: `python tests/architecture_tree.py` writes it.

It also brings the other generated parts of the docs up to date (see docs_reference).
"""

from __future__ import annotations

import ast
from pathlib import Path

import docs_reference

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: made by tests/architecture_tree.py -->\n```\n", "```\n<!-- end of tree -->"


def purpose(path: Path) -> str:
    """The first line of a module's docstring, without its full stop; empty where there is none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0].removesuffix(".")


def lines(folder: Path, depth: int = 0) -> list[str]:
    """The package below `folder`, a line each: modules first, then folders, with what they are for."""
    found = []
    pad = "    " * depth
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            found.append(f"{pad + path.name:<34}{purpose(path)}".rstrip())
    for inner in sorted(path.parent for path in folder.glob("*/__init__.py")):
        found.append(f"{pad + inner.name + '/':<34}{purpose(inner / '__init__.py')}".rstrip())
        found += lines(inner, depth + 1)
    return found


def tree() -> str:
    """The whole tree as text."""
    return "\n".join(["lmmcl/", *lines(REPOSITORY / "lmmcl", 1)]) + "\n"


def written() -> str:
    """The tree as the page has it."""
    return PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]


if __name__ == "__main__":
    docs_reference.write()
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(before + BEGIN + tree() + END + rest.split(END)[1], encoding="utf-8")
