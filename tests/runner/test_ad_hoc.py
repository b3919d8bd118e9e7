"""A model asked by hand: what it says before, meanwhile and after."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.runner import ad_hoc
from lmmcl.tasks import get_benchmark
from lmmcl.tasks.skills import Benchmark


def asked(tmp_path: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(ad_hoc, "_asked", lambda name: benchmark)
    console = Console(file=io.StringIO(), width=200)
    settings = {"limit": 4, "precision": "fp32", "console": console}
    ad_hoc.evaluate_checkpoint("tiny-onevision", ["colour"], Ledger(str(tmp_path)), Cluster(), **settings)  # type: ignore[arg-type]
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_benchmark_that_no_answer_can_get_right_is_refused_before_the_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    colour = get_benchmark("colour")
    long = [
        replace(example, messages=(*example.messages[:-1], replace(example.messages[-1], content="red " * 30)))
        for example in colour.take(4)
    ]
    benchmark = replace(colour, version=99, load=lambda: long)  # questions may be known by the identity
    with pytest.raises(UserError, match="most questions cannot be answered correctly"):
        asked(tmp_path, benchmark, monkeypatch)
    assert not list(tmp_path.glob("scores/**/record.json"))


def test_a_benchmark_that_can_be_answered_says_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "note:" not in asked(tmp_path, get_benchmark("colour"), monkeypatch)
    assert len(list(tmp_path.glob("scores/**/record.json"))) == 1
