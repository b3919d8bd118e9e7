"""One byte flipped in each file of a full store: no traceback, no wrong number, and what cannot be used is named."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence, run, told  # noqa: F401 - pretence is a fixture

from lmmcl.inspection.audit import check_store
from lmmcl.ledger import Ledger
from lmmcl.ledger.packs.packed_files import pack_of
from lmmcl.ledger.packs.packing import unpack
from lmmcl.steps import Finetune

SWEEP = SEARCH.replace("[counting, clock, birds]", "[counting, clock]").replace("[colour, shape]", "[colour]").replace(
    "1.0e-5, 1.0e-4, 1.0e-3]", "1.0e-3, 1.0e-4]"
) + "search: {scheduler: {asha: {metric: learning, reduction_factor: 2}}}\n"  # fmt: skip
MADE_ANEW = ("reports/small/index.html", "reports/small/tradeoff.png", "reports/small/shown.json")

pytestmark = pytest.mark.usefixtures("packed_runs")


@pytest.fixture(params=["single files", "packs"])
def store(request: pytest.FixtureRequest, tmp_path: Path, pretence: Pretence) -> Path:  # noqa: F811
    """A finished sweep with one stopped and one failed trial."""

    def breaks(step: Any) -> None:
        if isinstance(step, Finetune) and step.training.learning_rate == 1e-4:
            raise RuntimeError("broke")

    pretence.breaks = breaks
    sweep = write_sweep(tmp_path, SWEEP)
    assert run(sweep).exit_code == 1
    folder = tmp_path / "store"
    for name in MADE_ANEW:
        (folder / name).write_bytes(b"<html>")
    records = {"packs"} if request.param == "packs" else {"checkpoints", "scores"}
    if request.param == "single files":
        unpack(Ledger(str(folder)))
    kinds = {path.relative_to(folder).parts[0] for path in files(folder)}
    assert kinds >= {"searches", "failures", "reports"} | records
    return folder


def files(store: Path) -> list[Path]:
    return sorted(path for path in store.rglob("*") if path.is_file())


def flipped(content: bytes, seed: str) -> bytes:
    """`content` with one bit of one byte changed; somewhere else in each file, and the same each time."""
    places = random.Random(seed)
    at, bit = places.randrange(len(content)), 1 << places.randrange(8)
    return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]


def numbers(report: dict[str, Any]) -> dict[tuple[Any, ...], float]:
    """Everything that was measured, by trial, stage and name."""
    return {
        (trial["key"], stage["number"], name): value
        for trial in report["trials"]
        for stage in trial["stages"]
        for name, value in {**stage["scores"], **{k: v for k, v in stage.items() if isinstance(v, float)}}.items()
        if value is not None
    }


def test_a_flipped_byte_anywhere_gives_no_traceback_and_no_wrong_number(store: Path) -> None:
    sweep = next(store.parent.glob("*.yaml"))
    whole = numbers(told("report", sweep))
    assert len(whole) > 20
    for file in files(store):
        name, content = file.relative_to(store).as_posix(), file.read_bytes()
        damaged = flipped(content, name)
        file.write_bytes(damaged)
        shown = numbers(told("report", sweep))
        assert all(whole[key] == value for key, value in shown.items()), f"{name}: {damaged!r}"
        lmmcl("status", sweep, "--store", store)
        audit = check_store(Ledger(str(store)))
        if name not in MADE_ANEW:
            found = [each.path for each in audit.damages if name.startswith(each.path) or name == pack_of(each.path)]
            assert found, f"{name}: {damaged!r}"
        file.write_bytes(content)
    assert not check_store(Ledger(str(store))).damages


def test_a_run_makes_good_what_was_damaged_beside_the_records(store: Path, pretence: Pretence) -> None:  # noqa: F811
    sweep = next(store.parent.glob("*.yaml"))
    before = told("report", sweep)["trials"]
    beside = [file for file in files(store) if file.relative_to(store).parts[0] in ("searches", "failures", "reports")]
    beside = [file for file in beside if file.relative_to(store).as_posix() not in MADE_ANEW]
    contents = {file: file.read_bytes() for file in beside if file.suffix in (".json", ".txt")}
    for file, content in contents.items():
        file.write_bytes(flipped(content, file.name))
    assert len(check_store(Ledger(str(store))).damages) == len(contents) >= 4
    computed = list(pretence.computed)
    assert run(sweep).exit_code == 1, "the broken trial breaks again"
    assert pretence.computed == computed, "no result is computed again"
    assert told("report", sweep)["trials"] == before
    left = check_store(Ledger(str(store)), repair=True).damages
    assert all(each.path.startswith("searches/") for each in left), "decisions that nobody needs any more"
    assert not check_store(Ledger(str(store))).damages
    assert json.loads((store / "reports/small/sweep.json").read_text())["name"] == "small"
