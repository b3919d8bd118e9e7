"""Every image-text-to-text type of transformers: trained, exported and loaded again in small, or refused before it trains.

The types come from transformers' own table. Ten families walk in the fast suite.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from models.walk_table import PAGE, TABLE, markdown, refused, walking
from packaging.version import Version

FAST = (
    "gemma3",
    "idefics3",
    "instructblip",
    "internvl",
    "llava",
    "mistral3",
    "mllama",
    "paligemma",
    "qwen2_5_vl",
    "qwen3_5",
)
FAST_REFUSED = ("florence2", "fuyu", "git", "llama4")
MOST_OFF = 1e-3
"""How far logits may be from those of a single row: another order of the same sums."""

Walk = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    """Walks a type in a process of its own, forked from one that has imported the libraries."""
    folder = tmp_path_factory.mktemp("walks")
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "models.walk_type", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as server:
        stdin, stdout = server.stdin, server.stdout
        assert stdin is not None and stdout is not None

        def ask(name: str) -> dict[str, Any]:
            print(name, file=stdin, flush=True)
            for line in stdout:
                if line.startswith("{"):
                    return json.loads(line)
            raise AssertionError(f"{name}: the process that walks types has ended")

        yield ask
        stdin.close()


def marked(names: list[str], fast: tuple[str, ...]) -> list[Any]:
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


def test_the_table_holds_every_type_that_transformers_has_and_most_of_them_walk() -> None:
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    types = set(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)
    assert types <= set(TABLE), "types that the table of walks lacks"
    assert types == set(TABLE) or Version(transformers.__version__) < Version("5.24"), "earlier versions lack some"
    assert len(TABLE) >= 100
    assert len(walking()) >= 60
    assert set(FAST) <= set(walking()) and set(FAST_REFUSED) <= set(refused())
    assert set(walking()) | set(refused()) == set(TABLE)


def test_the_page_on_models_shows_the_table() -> None:
    assert markdown() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", marked(walking(), FAST))
def test_a_type_trains_is_exported_and_loads_again(walk: Walk, name: str) -> None:
    result = walk(name)
    assert result["walked"], result
    assert list(result["recipes"]) == ["sa_proj", TABLE[name]["mlp"]]
    assert all(moved > 0 for moved in result["recipes"].values())
    assert result["export_off"] == 0.0
    assert result["batch_off"] < MOST_OFF
    assert result["leak"] < MOST_OFF / 100
    assert result["answers_alike"]


@pytest.mark.parametrize("name", marked(refused(), FAST_REFUSED))
def test_a_type_that_cannot_walk_is_refused_with_its_reason_before_it_trains(walk: Walk, name: str) -> None:
    reason = TABLE[name]["refused"]
    if "torchvision" in reason and find_spec("torchvision"):
        pytest.skip("torchvision is installed, so the type is not refused for its lack")
    result = walk(f"{name} {TABLE[name].get('by', 'bare')}" if TABLE[name].get("by") != "whole" else name)
    assert not result["walked"]
    assert reason in result["refused"], result
    assert result["trained"] == []
