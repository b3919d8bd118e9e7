"""The code of the bench of a large model's weights runs, and its model has the shape of the real one."""

from __future__ import annotations

from pathlib import Path

import big_weights
import pytest
import random_qwen
import torch
import weight_steps

from lmmcl.models import get_model
from lmmcl.models.inventory import meta_model


def test_a_rehearsal_measures_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(big_weights.REHEARSAL, "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module, name in (("resident", "digest_tensors"), ("loop", "fast_digests"), ("loop", "save_delta")):
        of = getattr(weight_steps, module)
        monkeypatch.setattr(of, name, getattr(of, name))  # put back afterwards
    found = big_weights.measure(tmp_path, random_qwen.Size(real=False))
    beside_plain = [name for name, row in found.items() if "plain_seconds" in row]
    assert len(beside_plain) == 7 and all(found[name]["bytes"] > 0 for name in beside_plain)
    assert found["of it: digest"]["bytes"] == found["of it: proof"]["bytes"] == found["stage"]["digest_bytes"]
    assert found["of it: delta"]["bytes"] == found["stage"]["delta_bytes"]
    told = big_weights.table(found)
    assert all(f"| {name} |" in told for name in found) and "`plan` tells" in told
    found["stage"] |= {"peak": 1e9, "estimate": 1.1e9}
    assert "what a plan tells is more than 15 % off" not in big_weights.misses(found)
    found["stage"] |= {"estimate": 1.2e9}
    assert "what a plan tells is more than 15 % off" in big_weights.misses(found)
    limits = {name: big_weights.ceiling(found, name) for name in beside_plain}
    assert limits.pop("of it: delta") is None and all(limit is not None and 0 < limit < 1 for limit in limits.values())
    assert not list((tmp_path / "export").glob("*")), "what was written is removed"


def test_the_big_model_has_the_size_of_the_real_one() -> None:
    config, _ = random_qwen.Size().values()
    size = sum(parameter.numel() for parameter in meta_model(config).parameters())
    assert size == pytest.approx(sum(get_model("qwen2.5-vl-3b").role_counts().values()), rel=0.01)
    assert torch.bfloat16.itemsize * size == pytest.approx(7.5e9, rel=0.02)
