"""Imports run one way, without circles; rooms stay small, and light ones stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lmmcl"
LAYERS = [
    {"__main__"},
    {"cli", "api"},
    {"runner"},
    {"jobs", "inspection", "maintenance"},
    {"planning", "tracking"},
    {"reports"},
    {"training", "evaluation"},
    {"weights", "search"},
    {"ledger"},
    {"config", "steps"},
    {"models", "methods", "tasks"},
    {
        "registry",
        "errors",
        "measures",
        "synonyms",
        "masking",
        "atomic_files",
        "terminal",
        "strict_json",
        "temp_folder",
        "version",
    }
    | {"environment", "back_off", "yaml_text", "private_api", "named_settings"},
]
HEIGHT = {room: height for height, rooms in enumerate(reversed(LAYERS)) for room in rooms}
PATHS = sorted(PACKAGE.rglob("*.py"))
MOST_FILES = 15
MOST_LINES = 59
HEAVY = ["torch", "ray", "mlflow", "transformers", "deepspeed", "peft", "datasets"]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {dotted(path): path for path in PATHS}


def imported_modules(path: Path) -> set[str]:
    """Modules of ours that a file imports anywhere: in functions and for types only as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & MODULES.keys()) | ({node.module} if inner - MODULES.keys() else set())
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES}


IMPORTS = {name: imported_modules(path) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_floor() -> None:
    assert len(MODULES) >= 200
    assert {room_of(module) for module in MODULES} - {""} == set(HEIGHT)


@pytest.mark.parametrize("module", [module for module in MODULES if room_of(module)])
def test_a_module_imports_only_from_its_own_floor_down(module: str) -> None:
    height = HEIGHT[room_of(module)]
    upward = {other for other in IMPORTS[module] if room_of(other) and HEIGHT[room_of(other)] > height}
    assert not upward, f"{module} reaches up to {upward}"


def test_training_and_evaluation_do_not_know_each_other() -> None:
    for room, other in (("training", "evaluation"), ("evaluation", "training")):
        known = {room_of(name) for module in MODULES if room_of(module) == room for name in IMPORTS[module]}
        assert room in known and other not in known


def test_no_two_files_import_each_other_even_through_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' → '.join(error.args[1])}")


def test_no_folder_holds_more_modules_than_a_reader_keeps_in_mind() -> None:
    counts = Counter(path.parent.relative_to(PACKAGE) for path in PATHS if path.name != "__init__.py")
    assert len(counts) >= 20
    assert not {str(folder): count for folder, count in counts.items() if count > MOST_FILES}


def test_no_file_name_stands_twice() -> None:
    names = Counter(path.name for path in PATHS if path.name != "__init__.py")
    assert not [name for name, count in names.items() if count > 1]


def test_a_plan_imports_nothing_heavy(tmp_path: Path) -> None:
    from made import write_sweep

    code = (
        "import sys, lmmcl.cli\n"
        f"sys.argv = ['lmmcl', 'plan', {str(write_sweep(tmp_path))!r}, '--store', {str(tmp_path / 'store')!r}]\n"
        "try: lmmcl.cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout


def test_no_function_is_longer_than_59_lines() -> None:
    long = [
        f"{name}.{node.name}: {lines} lines"
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MOST_LINES
    ]
    assert not long
