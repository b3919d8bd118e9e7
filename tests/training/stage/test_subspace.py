"""OSF's preserved directions: no update leaves anything in them, and the record proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from stage_parts import BASE, stage, weights

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.adapters import check_whole_adapter
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.training.attaching.attach import attach
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.subspace import Subspaces
from lmmcl.training.stage.trainable import Adapted
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.checkpoint import named_tensors
from lmmcl.weights.fast_digest import fast_digests


def osf_stage(monkeypatch: pytest.MonkeyPatch, *, projects: bool) -> Adapted:
    """A model with OSF after a dozen updates of AdamW by gradients of any direction."""
    if not projects:
        monkeypatch.setattr(Subspaces, "project", lambda self: None)
    made = attach(stage(recipe="osf"), BASE.model.load_model())
    assert isinstance(made, Adapted)
    own = dict(made.model.named_parameters())
    optimizer = torch.optim.AdamW([own[name] for name in made.added], lr=1e-3)
    optimizer.register_step_post_hook(lambda *_: made.after_update and made.after_update())
    noise = torch.Generator().manual_seed(0)
    for _ in range(12):
        for name in made.added:  # PEFT projects gradients by hooks, which the way back from a loss calls
            own[name].backward(torch.randn(own[name].shape, generator=noise))
        optimizer.step()
        optimizer.zero_grad()
    return made


def preserved_share(layer: Any) -> float:
    """‖UₕᵀΔW‖ / ‖ΔW‖ or its like on the right, the larger, written out in doubles from a decomposition of the start."""
    own = layer.osf_svd_params["default"]
    before = {part: getattr(layer, f"_osf_{part}_low_init")["default"].double() for part in "USV"}
    after = (own["U_low"].double() * own["S_low"].double()) @ own["V_low"].double()
    change = (after - (before["U"] * before["S"]) @ before["V"]).detach()
    u, _, v = torch.linalg.svd(layer.base_layer.weight.detach().double(), full_matrices=False)
    kept = layer.effective_rank["default"]
    return float(max((u[:, :kept].T @ change).norm(), (change @ v[:kept].T).norm()) / change.norm())


def test_updates_of_adamw_leave_nothing_in_what_osf_preserves(monkeypatch: pytest.MonkeyPatch) -> None:
    """arXiv 2504.07097 asks for updates orthogonal to the large directions; AdamW's are not, even of projected gradients."""
    made = osf_stage(monkeypatch, projects=True)
    assert made.subspaces is not None
    layers = [made.model.get_submodule(name.rpartition(".")[0]) for name in made.targets]
    assert {(layer.out_features > layer.in_features, layer.out_features < layer.in_features) for layer in layers} == {
        (True, False),
        (False, True),
        (False, False),
    }, "tall, wide and square layers"
    assert max(map(preserved_share, layers)) < 1e-4, "of directions decomposed again; two near the cut may turn"
    fields = made.subspaces.merge().fields()
    assert fields["leak"] < 1e-9
    assert 0 < fields["leak_of_factors"] < 1e-5, "factors in fp32 are orthogonal up to their rounding"


def test_without_projection_adamw_leaks_and_the_stage_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = osf_stage(monkeypatch, projects=False)
    layers = [made.model.get_submodule(name.rpartition(".")[0]) for name in made.targets]
    assert max(map(preserved_share, layers)) > 0.05
    with pytest.raises(StageError, match="changed in directions that osf preserves"):
        made.merge_adapters(fast_digests(named_tensors(BASE.model.load_model())), tmp_path)


def test_a_fresh_osf_layer_computes_what_the_layer_did(tmp_path: Path) -> None:
    made = attach(stage(recipe="osf"), BASE.model.load_model())
    assert isinstance(made, Adapted) and made.subspaces is not None
    for name in made.targets:
        layer: Any = made.model.get_submodule(name.rpartition(".")[0])
        assert float(layer.get_delta_weight("default").detach().abs().max()) == 0
    assert made.subspaces.merge().fields() == {"leak": 0.0, "leak_of_factors": 0.0}


def test_a_record_tells_what_leaked_of_osf_and_the_weights_agree(tmp_path: Path) -> None:
    step, ledger = stage(recipe="osf", max_steps=8), Ledger(str(tmp_path))
    record = finetune(step, ledger, TrainingPlacement())
    assert record["adapter"]["leak"] < 1e-6
    assert record["adapter"]["leak_of_factors"] < 1e-4
    start, after = weights(BASE, ledger), weights(step, ledger)
    shares = []
    for name in [each for each in start if each.endswith("layers.0.mlp.up_proj.weight") and "language" in each]:
        before, change = start[name].detach().double(), (after[name] - start[name]).detach().double()
        u, _, _ = torch.linalg.svd(before, full_matrices=False)
        preserved = u[:, : min(before.shape) // 2].T @ change
        shares.append(float(preserved.norm() / change.norm()))
    print("of stored fp32 weights:", shares)
    assert shares and max(shares) < 1e-3


@pytest.mark.parametrize("strategy", ["zero1", "zero2", "zero3", "fsdp"])
def test_osf_is_refused_where_weights_or_copies_of_them_are_divided(strategy: str) -> None:
    check_whole_adapter(get_recipe("osf").adapter, "ddp")
    check_whole_adapter(get_recipe("lora").adapter, strategy)
    with pytest.raises(UserError, match=f"osf projects its weights after each update, and {strategy}"):
        check_whole_adapter(get_recipe("osf").adapter, strategy)
