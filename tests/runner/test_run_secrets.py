"""Passwords in the URIs of a run stand in nothing that it writes or prints."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from made import write_sweep
from pretended import SEARCH, Pretence, lmmcl, pretence  # noqa: F401 - pretence is a fixture

from lmmcl.ledger.store import Store
from lmmcl.runner import command
from lmmcl.steps import Finetune

SECRET = "NOTASECRET"
DATABASE = f"postgresql://me:{SECRET}@127.0.0.1:9/db?sslpassword={SECRET}"
PAGE = command.write_report


def broken(step: Any) -> None:
    if isinstance(step, Finetune) and step.training.learning_rate == 1e-3:
        raise RuntimeError(f"ftp://me:{SECRET}@host did not answer")


def found_in(folder: Path) -> list[str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {"index.html", "sweep.json"} <= {path.name for path in files}
    return [str(path) for path in files if SECRET.encode() in path.read_bytes()]


@pytest.fixture
def outputs(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Any:
    caplog.set_level(logging.DEBUG, "lmmcl")

    def collect(printed: str) -> str:
        captured = capfd.readouterr()
        return printed + captured.out + captured.err + caplog.text

    return collect


@pytest.mark.parametrize("store", ["folder", f"memory://me:{SECRET}@host/store"])
def test_no_password_is_written_or_printed(
    store: str,
    tmp_path: Path,
    pretence: Pretence,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    outputs: Any,
) -> None:
    monkeypatch.setattr(command, "write_report", PAGE)
    monkeypatch.chdir(tmp_path)
    pretence.breaks = broken
    sweep = write_sweep(tmp_path, SEARCH)
    arguments = ["run", str(sweep), "--inline", "--store", store, "--mlflow", DATABASE]
    monkeypatch.setattr(sys, "argv", ["lmmcl", *arguments])
    run = lmmcl(*arguments)
    assert run.exit_code == 1, "one trial failed"
    shown = [
        lmmcl(name, sweep, "--store", store, *more) for name, more in [("status", ()), ("report", ("--format", "md"))]
    ]
    printed = outputs(run.output + "".join(each.output for each in shown))
    assert "***" in printed
    assert SECRET not in printed
    assert not found_in(tmp_path)
    if store.startswith("memory"):
        kept = Store(store)
        assert not [name for name in kept.sizes("") if SECRET.encode() in kept.read(name)]


def test_the_environment_names_mlflow_too(tmp_path: Path, pretence: Pretence, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("LMMCL_MLFLOW", "http://me:pw@127.0.0.1:9")
    from lmmcl.errors import UserError

    with pytest.raises(UserError, match=r"MLflow server at http://\*\*\*@127\.0\.0\.1:9 cannot be reached"):
        lmmcl("run", write_sweep(tmp_path, SEARCH), "--inline", "--store", tmp_path / "store")
