"""The table of strategies in docs/cluster.md: what holds was measured with two workers, what is refused a plan refuses.

    LMMCL_WRITE_STRATEGIES=all pytest -n 0 -m slow tests/training/distributed/test_strategy_table.py    # fills docs/strategies.json
    python tests/architecture_tree.py                                                                # and the page

`LMMCL_WRITE_STRATEGIES=missing` walks only the rows that the table lacks, such as that of a new mitigation.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from docs_reference import STRATEGIES
from stage_parts import weights
from strategy_rows import PLACES, Row, combination_rows, first_stage, place_of, places, rows
from torch import Tensor
from torch.utils.cpp_extension import get_default_build_root

from lmmcl.ledger import Ledger
from lmmcl.methods import mitigation_names
from lmmcl.methods.recipes.recipe import KINDS
from lmmcl.training.attaching.attach import attach
from lmmcl.weights.checkpoint import load_checkpoint, named_tensors

WALK = Path(__file__).with_name("walk_strategies.py")
TESTS = Path(__file__).parents[2]
ROUNDING = 0.01
"""‖difference from one process‖ / ‖what one process moved‖ over four updates: sums in another order, which Adam scales up."""
HALF = 0.2
"""The same in bf16, whose forward pass each strategy rounds in places of its own."""
SHOWS = 10
"""How many times more than that a mitigation must change, for a row to say that it holds."""
ROWS = {row.name: row for row in rows()}
WRITE = os.environ.get("LMMCL_WRITE_STRATEGIES", "")


def table() -> dict[str, dict[str, Any]]:
    """The cells of the table in the docs by row."""
    rows = json.loads(STRATEGIES.read_text(encoding="utf-8"))["rows"] if STRATEGIES.exists() else []
    return {row["name"]: row["cells"] for row in rows}


def test_the_table_has_a_row_for_every_kind_of_recipe_every_mitigation_and_every_pair_of_kinds() -> None:
    assert list(table()) == list(ROWS), "a member was added or renamed: see the top of this file"
    assert set(KINDS) | {"component", "slices of fused tensors"} <= set(ROWS)
    assert set(mitigation_names()) <= set(ROWS)
    combined = {frozenset(map(place_of, row.mitigation)) for row in combination_rows()}
    assert len(places()) >= 6
    assert {frozenset((one, other)) for one in places() for other in places() if one != other} <= combined
    assert all(set(cells) == set(PLACES) for cells in table().values())


@pytest.mark.parametrize("strategy", PLACES)
def test_a_plan_refuses_what_the_table_says_is_refused_and_nothing_else(strategy: str, tmp_path: Path) -> None:
    told = {name: cells[strategy].get("refused") for name, cells in table().items()}
    assert {name: row.refusal(strategy, tmp_path) for name, row in ROWS.items()} == told
    assert strategy == "ddp" or any(told.values())


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """The folder of the stores, and what became of each row, by strategy; `single` is one process."""
    folder = tmp_path_factory.mktemp("strategies")
    (folder / "cache").mkdir()  # DeepSpeed compiles an operation, which takes minutes: once for all runs
    Path(get_default_build_root()).mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "torch_extensions").symlink_to(get_default_build_root(), target_is_directory=True)
    found, names = {}, [name for name in ROWS if name not in table()] if WRITE == "missing" else []
    for strategy in ("single", *PLACES):
        store, out = folder / strategy, folder / f"{strategy}.json"
        command = [sys.executable]
        if strategy != "single":
            shutil.copytree(folder / "single", store, ignore=shutil.ignore_patterns("*-shades-*"))
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }
        done = subprocess.run(
            [*command, str(WALK), strategy, str(store), str(out), *names],
            capture_output=True,
            text=True,
            env=environment,
            cwd=folder,
            timeout=1500,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        found[strategy] = json.loads(out.read_text(encoding="utf-8"))
    return folder, found


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_cell_holds_or_is_refused(
    walked: tuple[Path, dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, found = walked
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))  # the model that fuses tensors is known by it
    known = {} if WRITE == "all" else table()
    filled = {name: cells(row, folder, found) for name, row in ROWS.items() if name in found["single"]}
    if WRITE:
        write({name: filled.get(name, known.get(name)) for name in ROWS})
    told = {name: verdicts(row) for name, row in filled.items()}
    assert told and told == {name: verdicts(row) for name, row in table().items() if name in told}


def write(filled: dict[str, Any]) -> None:
    """Fill the file that the table in the docs is made from."""
    versions = ("torch", "transformers", "accelerate", "deepspeed", "peft")
    whole = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in versions},
        "rows": [{"kind": ROWS[name].kind, "name": name, "cells": row} for name, row in filled.items()],
    }
    STRATEGIES.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def verdicts(row: dict[str, Any]) -> dict[str, str]:
    """The cells of a row without what was measured."""
    return {strategy: cell.get("refused", "holds") for strategy, cell in row.items()}


def cells(row: Row, folder: Path, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The cells of a row by strategy: `refused` with the reason, or `difference` from one process, relative to what moved."""
    reference = found["single"][row.name]
    one, start = tensors(row, folder / "single"), start_of(row, folder / "single")
    moved = distance(one, start)
    limit = HALF if row.precision != "fp32" else ROUNDING
    filled: dict[str, Any] = {}
    for strategy in PLACES:
        cell = found[strategy][row.name]
        refused = row.refusal(strategy, folder)
        assert cell.get("refused") == refused, f"{row.name} under {strategy}: a plan says {refused}, training {cell}"
        if refused:
            filled[strategy] = {"refused": refused}
            continue
        assert cell["strategy"] == strategy and cell["proof"] == reference["proof"], f"{row.name} under {strategy}"
        difference = distance(one, tensors(row, folder / strategy)) / moved
        assert difference < limit, f"{row.name} under {strategy} differs by {difference:.2g} of what moved"
        filled[strategy] = {"difference": float(f"{difference:.1g}")}
    if row.changes_weights and "refused" not in reference:
        shows = distance(one, tensors(row.plain(), folder / "single")) / moved
        largest = max((cell.get("difference", 0) for cell in filled.values()), default=0)
        assert shows > SHOWS * min(largest, ROUNDING), (
            f"{row.name} changes {shows:.2g} of what moved: its row says nothing"
        )
    return filled


def tensors(row: Row, store: Path) -> dict[str, Tensor]:
    """What a row ended in, in a store."""
    return weights(row.last(store.parent), Ledger(str(store)))


def start_of(row: Row, store: Path) -> dict[str, Tensor]:
    """What its stage started from, with the experts that it adds."""
    step = row.finetune(store.parent)
    model = load_checkpoint(step.parent, Ledger(str(store)), precision="fp32")
    if step.recipe.adapter and step.recipe.adapter.adds_experts:
        attach(step, model)
    return named_tensors(model)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The norm of the difference of all tensors together; what a quantised model keeps of adapters begins empty."""
    assert one.keys() == other.keys()
    with torch.no_grad():
        begun = {name: value if value.numel() else torch.zeros_like(one[name]) for name, value in other.items()}
        return float(sum(float((one[name].double() - begun[name].double()).square().sum()) for name in one) ** 0.5)


def test_the_stage_before_each_row_leaves_an_adapter_to_be_orthogonal_to() -> None:
    assert first_stage().recipe.adapter is not None
