"""What a stage costs over a bare torch loop that does the same updates: CPU seconds of one process, encodings warm in both."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.config.settings import Training
from lmmcl.ledger import Ledger
from lmmcl.methods.recipes.recipe import get_recipe
from lmmcl.models import get_model
from lmmcl.models.processing.encode import encode
from lmmcl.models.processing.padding import pad
from lmmcl.models.roles import select
from lmmcl.steps import Finetune, Pretrained
from lmmcl.tasks import get_skill
from lmmcl.training.finetune import finetune
from lmmcl.training.stage.collate import row_order
from lmmcl.weights.checkpoint import load_checkpoint

pytestmark = pytest.mark.bench

MODEL = get_model("tiny-onevision")
SETTINGS = Training(learning_rate=1e-3, epochs=2, examples=1500, global_batch_size=32, precision="fp32")
UPDATES = 94


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def bare_loop(recipe: str, encoded: list[dict[str, torch.Tensor]], ledger: Ledger) -> None:
    """Load, train with AdamW, clip, schedule; nothing else."""
    model = load_checkpoint(Pretrained(MODEL), ledger, precision="fp32").train()
    roles = MODEL.roles_of(name for name, _ in model.named_parameters())
    names = select(roles, get_recipe(recipe).train, model=MODEL.name)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda update: 1 - update / UPDATES)
    processor = MODEL.load_processor()
    rows = row_order(len(encoded), UPDATES * 32, seed=0)
    for update in range(UPDATES):
        batch = pad(processor, [encoded[row] for row in rows[update * 32 : update * 32 + 32]])
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("recipe", ["sa_proj", "full"])
def test_a_stage_costs_no_more_than_a_third_over_a_bare_loop(recipe: str, tmp_path: Path) -> None:
    ledger, skill = Ledger(str(tmp_path)), get_skill("counting")
    processor, examples = MODEL.load_processor(), skill.load()
    encoded = [encode(processor, examples[row], with_answer=True) for row in range(SETTINGS.examples or 0)]

    def stage(seed: int) -> None:
        finetune(
            Finetune(Pretrained(MODEL), get_recipe(recipe), None, skill, SETTINGS, seed), ledger, TrainingPlacement()
        )

    stage(0)
    ours = min(cpu_seconds(lambda: stage(1)), cpu_seconds(lambda: stage(2)))
    bare = min(cpu_seconds(lambda: bare_loop(recipe, encoded, ledger)) for _ in range(2))
    print(f"\n{recipe}: stage {ours:.2f} s, bare loop {bare:.2f} s, ratio {ours / bare:.2f}")
    assert ours < 1.3 * bare
