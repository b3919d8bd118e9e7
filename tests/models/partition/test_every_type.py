"""Every image-text-to-text type of transformers in small: its roles are right by what its modules do, and stay what they are.

`tests/golden/type_roles.json` holds roles and the share that each recipe trains; `python -m models.partition.test_every_type`
(in `tests/`) writes it again. Each type is built in a process of its own with bounded memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parents[2] / "golden" / "type_roles.json"
FAST = (
    "llava",
    "qwen3_5",
    "glm4v_moe",
    "mllama",
    "glm4v",
    "gemma4",
    "nemotron_h_omni",
    "lighton_ocr",
    "idefics",
    "fuyu",
)
TIMM = ("fast_vlm", "gemma3n", "perception_lm")
"""Their vision towers are timm's, which is not installed everywhere."""

NOT_BUILT = ("evolla", "diffusion_gemma")
"""The first is not a class that `AutoModelForImageTextToText` takes, the second's default configuration is incomplete."""


def rows(types: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What a process of its own finds of `types`."""
    tests = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}:{tests}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "models.partition.behaviour", *types]
    out = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tests, env=environment).stdout
    return {row["type"]: row for row in map(json.loads, out.splitlines())}


def golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def mapping() -> list[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return list(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES)


def check(row: dict[str, Any], held: dict[str, Any]) -> None:
    assert row.get("wrong") == [], row
    assert row["roles"] == held["roles"], row["type"]
    assert row["shares"] == held["shares"], row["type"]


def test_ten_types_of_different_kinds_use_their_parameters_as_their_roles_say() -> None:
    held = golden()
    found = rows(FAST)
    for model_type in FAST:
        check(found[model_type], held[model_type])


@pytest.mark.slow
def test_every_type_of_the_auto_mapping_uses_its_parameters_as_its_roles_say() -> None:
    held = golden()
    types = [model_type for model_type in mapping() if model_type not in (*TIMM, *NOT_BUILT, *FAST)]
    found = rows(types)
    known = [model_type for model_type in types if model_type in held]
    for model_type in known:
        check(found[model_type], held[model_type])
    assert len(known) + len(FAST) >= 90


def test_the_table_knows_nearly_every_type_of_the_auto_mapping() -> None:
    held = golden()
    assert len(held) >= 90
    assert set(mapping()) - set(held) <= {*TIMM, *NOT_BUILT}, "a newer transformers has types that were not examined"


def test_one_recipe_means_the_same_in_every_type() -> None:
    """`sa_proj` and `mlp` are everywhere; `gate_up` is refused exactly where no MLP has a gate."""
    for model_type, row in golden().items():
        trained = row["shares"]
        assert {"sa_proj", "mlp", "llm", "full"} <= set(trained), model_type
        assert trained["full"] == 1.0
        gated = any(".mlp.gate" in role for role in row["roles"])
        assert ("gate_up" in trained) == gated, model_type
        hybrid = any(role.endswith(".linear") for role in row["roles"])
        assert ("sa_linear" in trained) == hybrid, model_type
        if hybrid:
            assert trained["sa_proj"] == pytest.approx(trained["sa_softmax"] + trained["sa_linear"], abs=2e-4)


def test_few_parameters_are_in_no_part_of_the_language_model() -> None:
    for model_type, row in golden().items():
        assert row["other"] < 0.2, model_type  # hyper-connections, which weigh much in small alone


if __name__ == "__main__":
    examined = rows([model_type for model_type in mapping() if model_type not in (*TIMM, *NOT_BUILT)])
    table = {}
    for name, row in sorted(examined.items()):
        if row.get("wrong") == []:
            table[name] = {key: row[key] for key in ("roles", "shares", "other", "image")}
        else:
            sys.stderr.write(f"{name}: {row.get('wrong') or row.get('error')}\n")
    GOLDEN.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n", encoding="utf-8")
