"""One vLLM engine a base: it stays between the checkpoints of a process, asleep while it is not asked, and swaps their weights.

A checkpoint comes in as the tensors in which it differs from the base (see `vllm_worker`), or, where `evaluation.lora_rank`
allows its adapters, as a LoRA adapter beside the base's weights. What fits neither gets an engine for itself, and the log says so.
"""

from __future__ import annotations

import gc
import itertools
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lmmcl.config.cluster import EvaluationPlacement
from lmmcl.errors import UserError
from lmmcl.evaluation.engines.vllm_prompts import Vllm
from lmmcl.evaluation.engines.vllm_worker import EXTENSION
from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint, Pretrained
from lmmcl.steps.keys import canonical_json
from lmmcl.weights.adapter_export import VLLM_RANKS, export_adapter
from lmmcl.weights.changed_export import export_base, export_changed, shapes_in
from lmmcl.weights.checkpoint import export
from lmmcl.weights.lora import ADAPTER_CONFIG

log = logging.getLogger(__name__)


@dataclass
class Running:
    """An engine that stays, the folder of its base's weights, and what it holds now."""

    place: tuple[str, str, str]
    engine: Vllm
    folder: tempfile.TemporaryDirectory[str]
    shapes: dict[str, tuple[int, ...]]
    awake: bool = True
    is_base: bool = True
    """Whether its weights are the base's."""
    adapters: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def base(self) -> Path:
        """The directory of the base's weights."""
        return Path(self.folder.name) / "model"

    def wake(self) -> None:
        """Bring its weights back to the GPU."""
        if not self.awake:
            self.engine.model.wake_up()
        self.awake = True

    def sleep(self) -> None:
        """Give the GPU's memory back: probes, and stages that train, may need it next."""
        self.engine.lora = None
        self.engine.model.sleep(level=1)
        self.awake = False

    def swap(self, changed: Path) -> None:
        """Put what `changed` holds over the base, and forget what was worked out with other weights."""
        self.engine.model.collective_rpc("swap_weights", args=(str(self.base), str(changed)))
        for forget in ("reset_prefix_cache", "reset_mm_cache"):
            getattr(self.engine.model, forget)()
        self.engine.model.llm_engine.reset_encoder_cache()

    def close(self) -> None:
        """End the engine."""
        del self.engine.model
        gc.collect()
        self.folder.cleanup()


_RUNNING: list[Running] = []
"""The engine that stays: none or one, for a GPU has room for one."""


@contextmanager
def engine_of(checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str) -> Iterator[Vllm]:
    """An engine that answers as `checkpoint`, for the time of the `with`: the one that stays, unless it cannot take its weights."""
    running = _of_base(checkpoint, ledger, placement, precision)
    running.wake()
    try:
        reason = _show(running, checkpoint, ledger, placement, precision)
    except BaseException:  # half of the weights may have been put in place
        close_engines()
        raise
    if reason is None:
        try:
            yield running.engine
        finally:
            running.sleep()
        return
    log.warning("vLLM starts another engine for %s alone: %s", checkpoint.label, reason)
    close_engines()
    with tempfile.TemporaryDirectory(prefix="lmmcl-vllm-") as folder:
        export(checkpoint, ledger, Path(folder) / "model")
        alone = Vllm(Path(folder) / "model", checkpoint.model.load_processor(), placement, precision)
        try:
            yield alone
        finally:
            del alone.model
            gc.collect()


def close_engines() -> None:
    """End what stays."""
    while _RUNNING:
        _RUNNING.pop().close()


def _of_base(checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str) -> Running:
    lmm = checkpoint.model
    place = (canonical_json(lmm.identity()), precision, placement.model_dump_json())
    if not (_RUNNING and _RUNNING[0].place == place):
        close_engines()
        folder = tempfile.TemporaryDirectory(prefix="lmmcl-vllm-")
        base = Path(folder.name) / "model"
        export_base(Pretrained(lmm), ledger, base, precision)
        engine = Vllm(base, lmm.load_processor(), placement, precision, **_stays(placement))
        _RUNNING.append(Running(place, engine, folder, shapes_in(base)))
    return _RUNNING[0]


def _stays(placement: EvaluationPlacement) -> dict[str, Any]:
    """Settings of an engine that sleeps and swaps its weights."""
    settings: dict[str, Any] = {"enable_sleep_mode": True, "worker_extension_cls": EXTENSION}
    if rank := placement.lora_rank:
        most = next((allowed for allowed in VLLM_RANKS if allowed >= rank), None)
        if most is None:
            raise UserError(f"vLLM takes adapters up to rank {VLLM_RANKS[-1]}", place="evaluation.lora_rank")
        settings |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": most}
    return settings


def _show(
    running: Running, checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, precision: str
) -> str | None:
    """Have an engine answer as `checkpoint`; returns what keeps it from that, or None."""
    with tempfile.TemporaryDirectory(prefix="lmmcl-vllm-changed-") as name:
        folder = Path(name)
        adapter = _adapter(checkpoint, ledger, placement, Path(running.folder.name) / "adapter")
        if adapter is None:
            export_changed(checkpoint, ledger, folder / "changed", precision)
            shapes = shapes_in(folder / "changed")
            if other := sorted(name for name, shape in shapes.items() if running.shapes.get(name) != shape):
                return f"{other[0]} and {len(other) - 1} more of its tensors have other names or shapes than the base's"
        else:
            (folder / "changed").mkdir()
            shapes = {}
        if shapes or not running.is_base:
            running.swap(folder / "changed")
            running.is_base = not shapes
    if adapter is not None:
        from vllm.lora.request import LoRARequest

        number = next(
            running.adapters
        )  # one that was never used: vLLM keeps adapters, and prompts read with them, by it
        running.engine.lora = LoRARequest(f"{checkpoint.key}-{number}", number, str(adapter))
    return None


def _adapter(checkpoint: Checkpoint, ledger: Ledger, placement: EvaluationPlacement, folder: Path) -> Path | None:
    """The adapter that a checkpoint is, written to `folder`; None where it is more than one that vLLM takes."""
    if not placement.lora_rank or not checkpoint.parents:
        return None
    shutil.rmtree(folder, ignore_errors=True)
    try:
        export_adapter(checkpoint, ledger, folder)
    except UserError as error:  # other weights than an adapter's: they are swapped
        log.info("%s is swapped in as weights: %s", checkpoint.label, error.message)
        return None
    fits, reason = _takes(folder, placement.lora_rank)
    if not fits:
        log.info("%s is swapped in as weights: %s", checkpoint.label, reason)
        return None
    return folder


def _takes(folder: Path, most: int) -> tuple[bool, str]:
    """Whether vLLM takes an adapter, and why not."""
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config["use_dora"]:
        return False, "vLLM loads no DoRA adapters"
    return config["r"] <= most, f"its rank is {config['r']}, and evaluation.lora_rank is {most}"
