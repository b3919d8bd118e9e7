"""All rows of the table of strategies in one process (of one), or in two under one strategy: `walk_strategies.py STRATEGY STORE OUT`.

Under torchrun two processes share one group and walk from row to row; each row is a stage of seconds. `single` is the
reference and needs no torchrun. What became of each row goes to OUT, as JSON.
"""

from __future__ import annotations

import json
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from strategy_rows import PLACES, Row, first_stage, fused_base, rows

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.steps import Merge
from lmmcl.steps.strategy_fit import check_strategy_fit
from lmmcl.training.finetune import finetune
from lmmcl.weights.checkpoint import ensure_pretrained
from lmmcl.weights.merging import merge


def placement(strategy: str) -> TrainingPlacement:
    """Two workers on CPUs with one example in a forward pass; FSDP is not offered there, so its settings are not checked."""
    if strategy == "single":
        return TrainingPlacement()
    told = {"workers": 2, "micro_batch_size": 1, **PLACES[strategy], "gpus_per_worker": 0}
    checked = TrainingPlacement(workers=2, micro_batch_size=1)
    return TrainingPlacement.model_construct(**{**checked.model_dump(), **told})


def allow_fsdp_on_cpus() -> None:
    """Let Trainer and accelerate divide a model by FSDP2 over CPU workers, as they do over GPUs, and our check let it pass."""
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    from lmmcl.training.stage import loop

    plain = AcceleratorState.__init__

    def init(self: Any, *given: Any, **more: Any) -> None:
        plugin = more.get("fsdp_plugin")
        plain(self, *given, **more)
        if plugin is not None:
            if self._mixed_precision != "no":
                plugin.set_mixed_precision(self._mixed_precision)
            self.distributed_type = DistributedType.FSDP
            self.fsdp_plugin = plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init
    loop.check_strategy = lambda step, placement: check_strategy_fit(step, placement.strategy_name)


def walk(row: Row, ledger: Ledger, place: TrainingPlacement, folder: Path, rank: int) -> dict[str, Any]:
    """What became of one row in this process."""
    step = row.finetune(folder)
    try:
        record = ledger.find(step) or finetune(step, ledger, place)  # rows share a stage where they only merge it
    except UserError as error:
        return {"refused": error.message}
    if isinstance(last := row.last(folder), Merge) and rank == 0:
        merge_all(last, ledger)
    curve = [line["loss"] for line in ledger.read_lines(step.path, "curve.jsonl")]
    return {"proof": record["proof"], "losses": curve, "strategy": record["strategy"]["name"]}


def merge_all(step: Merge, ledger: Ledger) -> None:
    """The merges of a row, first to last."""
    [before] = step.finetunes
    if isinstance(before, Merge):
        merge_all(before, ledger)
    if not ledger.find(step):
        merge(step, ledger)


def main(strategy: str, store: str, out: str) -> None:
    """Walk all rows."""
    rank = 0
    if strategy != "single":
        from torch import distributed

        distributed.init_process_group("gloo", timeout=timedelta(seconds=300))
        rank = distributed.get_rank()
    if strategy == "fsdp":
        allow_fsdp_on_cpus()
    folder, ledger = Path(store).parent, Ledger(store)
    if strategy == "single":
        ensure_pretrained(fused_base(folder), ledger)
        finetune(first_stage(), ledger, TrainingPlacement())
    wanted = [row for row in rows() if len(sys.argv) < 5 or row.name in sys.argv[4:]]
    if strategy == "single":
        wanted += [row.plain() for row in wanted if row.mitigation]
    found = {}
    for row in wanted:
        try:
            found[row.name] = walk(row, ledger, placement(strategy), folder, rank)
        except Exception:
            print(f"rank {rank}, row {row.name}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
            raise
        if rank == 0:
            Path(out).write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:4])
