"""Docstrings: public methods have one (their own or that of what they override), and a task's shows an example row."""

from __future__ import annotations

import ast
import importlib
import re
from itertools import islice
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lmmcl"
PROMPTS = Path(__file__).parent / "golden" / "prompts.json"
ROW = re.compile(r'Example row: "<image> (.+?)"\s→ "(.+?)"', re.DOTALL)
TASKS = [
    path
    for path in sorted((PACKAGE / "tasks").rglob("*.py"))
    if re.search(r"^(SKILLS|BENCHMARKS)\b", path.read_text(), re.M)
]
CLASSES = {
    node.name: (path, node)
    for path in sorted(PACKAGE.rglob("*.py"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
}


def bases(node: ast.ClassDef) -> list[str]:
    """The names of a class's bases, without their type arguments and modules."""
    plain = [base.value if isinstance(base, ast.Subscript) else base for base in node.bases]
    return [
        base.attr if isinstance(base, ast.Attribute) else base.id
        for base in plain
        if isinstance(base, ast.Attribute | ast.Name)
    ]


def documents(name: str, method: str) -> bool:
    """Whether a class or one of its bases documents a method; a library's base is taken to."""
    if name not in CLASSES:
        return name not in ("Protocol", "Generic", "object", "BaseModel", "ABC", "StrEnum", "NamedTuple")
    _, node = CLASSES[name]
    own = [
        each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == method
    ]
    return any(ast.get_docstring(each) for each in own) or any(documents(base, method) for base in bases(node))


def is_stub(method: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method of a protocol only states a type: `def name(self) -> str: ...`."""
    return [ast.unparse(each) for each in method.body] == ["..."]


IN_PROTOCOLS = {
    method.name
    for _, node in CLASSES.values()
    if "Protocol" in bases(node)
    for method in node.body
    if isinstance(method, ast.FunctionDef) and ast.get_docstring(method)
}
"""Methods that a protocol documents for all classes that have its form."""


def test_a_public_method_has_a_docstring_or_overrides_one_that_has() -> None:
    silent = [
        f"{path.relative_to(PACKAGE)}:{method.lineno}: {name}.{method.name}"
        for name, (path, node) in CLASSES.items()
        if not name.startswith("_")
        for method in node.body
        if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef) and not method.name.startswith("_")
        if not (documents(name, method.name) or is_stub(method) or method.name in IN_PROTOCOLS)
    ]
    assert len(CLASSES) > 150 and not silent, "\n".join(silent)


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.stem)
def test_a_task_shows_an_example_row_as_the_model_gets_it(path: Path) -> None:
    found = ROW.search(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
    assert found, 'end the docstring with: Example row: "<image> QUESTION" → "ANSWER"'
    question, answer = " ".join(found[1].split()), found[2]
    begins = re.split(r" …| [A-Z]\. ", question)[0]
    if "papers" in path.parts:
        prompts = re.sub(r"(\\n|\s)+", " ", PROMPTS.read_text(encoding="utf-8"))
        assert begins in prompts and f'"assistant: {answer}"' in prompts
        return
    module = importlib.import_module(f"lmmcl.tasks.synthetic.{path.stem}")
    drawn = [*getattr(module, "SKILLS", ()), *getattr(module, "BENCHMARKS", ())]
    rows = [example.messages for each in drawn for example in islice(each.load(), 30)]
    texts = {(" ".join(user.content.split()).removeprefix("<image> "), said.content) for user, said in rows}
    assert any(text.startswith(begins) and said == answer for text, said in texts)


def test_all_tasks_are_looked_at() -> None:
    assert len(TASKS) >= 20
