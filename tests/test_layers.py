"""Imports run one way, and light rooms stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lmmcl"
LAYERS = [
    {"__main__"},
    {"cli"},
    {"runner"},
    {"reports"},
    {"training", "evaluation"},
    {"weights"},
    {"ledger"},
    {"spec"},
    {"models", "methods", "tasks"},
    {"registry", "errors"},
]
HEIGHT = {room: height for height, rooms in enumerate(reversed(LAYERS)) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))
HEAVY = ["torch", "ray", "mlflow", "transformers", "deepspeed", "peft", "datasets"]


def imported_rooms(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} if node.module != "lmmcl" else {f"lmmcl.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("lmmcl.")}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_floor() -> None:
    assert len(MODULES) >= 40
    assert {room_of(path) for path in MODULES} - {"__init__"} == set(HEIGHT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_its_own_floor_down(path: Path) -> None:
    room = room_of(path)
    if room == "__init__":
        return
    upward = {other for other in imported_rooms(path) if HEIGHT.get(other, -1) > HEIGHT[room]}
    assert not upward, f"{path} reaches up to {upward}"


def test_training_and_evaluation_do_not_know_each_other() -> None:
    for room, other in (("training", "evaluation"), ("evaluation", "training")):
        assert all(other not in imported_rooms(path) for path in MODULES if room_of(path) == room)


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
