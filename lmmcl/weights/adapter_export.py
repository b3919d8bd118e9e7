"""The LoRA adapters of all stages on the way to a checkpoint, as one adapter for the pre-trained model.

Σ sᵢ·Bᵢ·Aᵢ is one product: the A below each other, the sᵢ·Bᵢ side by side. Its rank is the sum of theirs and its scale 1. A single
stage is written as it was trained, so that DoRA too can be exported then.
"""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmmcl.atomic_files import replacing
from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.models.hub import HubLMM
from lmmcl.models.inputs.model_settings import MARK
from lmmcl.models.pretrained import THINKING
from lmmcl.steps import Checkpoint
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import check_exportable, exported_record
from lmmcl.weights.lora import ADAPTER_CONFIG, ADAPTER_WEIGHTS, FOLDER, LORA_A, LORA_B, PEFT_PREFIX, scale_of

if TYPE_CHECKING:
    from torch import Tensor

KINDS = ("lora", "kappatune")
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts as `--max-lora-rank` (besides 1)."""


@dataclass(frozen=True)
class _Stage:
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def scale(self) -> float:
        return scale_of(self.config)


def export_adapter(step: Checkpoint, ledger: Ledger, directory: str | Path) -> Path:
    """Write a PEFT adapter directory: on the pre-trained model it computes what `step` does, up to the rounding of the merges.

    Raises UserError when `directory` holds files already, the step has not been computed, or it is more than LoRA adapters on
    the pre-trained model: another recipe's stage, a merge, several stages of DoRA.
    """
    from safetensors.torch import save_file

    directory = Path(directory)
    exported_record(step, ledger, directory)
    stages = _stages(step, ledger)
    tensors = dict(stages[0].tensors) if len(stages) == 1 else _joined(stages)
    config = {**stages[-1].config, **_base(step)}
    if len(stages) > 1:
        rank = sum(stage.config["r"] for stage in stages)
        config |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
    with replacing(directory) as partial:
        partial.mkdir()
        save_file(tensors, partial / ADAPTER_WEIGHTS)
        (partial / ADAPTER_CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        with ledger.opened(step.path, "step.json") as file:
            shutil.copyfile(file, partial / "lmmcl.json")
    return directory


def vllm_command(step: Checkpoint, directory: Path) -> str:
    """The command that serves the exported adapter in `directory` beside its base with vLLM; or what keeps vLLM from loading it."""
    config = json.loads((directory / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    if config["use_dora"]:
        return "vLLM loads no DoRA adapters; export without --adapter to serve this checkpoint"
    rank = next((most for most in VLLM_RANKS if most >= config["r"]), None)
    if rank is None:
        return f"vLLM loads adapters up to rank {VLLM_RANKS[-1]}, this one has {config['r']}; export without --adapter"
    base, revision = config["base_model_name_or_path"], config.get("revision")
    if not isinstance(step.model, HubLMM) and not Path(base).is_dir():
        return f"PEFT puts it on {base}; vLLM needs a base that lies in a folder or on the hub"
    words = ["vllm", "serve", base, *(["--revision", revision] if revision else []), "--enable-lora"]
    words += ["--max-lora-rank", str(rank), "--lora-modules", f"{directory.name}={directory.absolute()}"]
    return shlex.join(words)


def _base(step: Checkpoint) -> dict[str, str]:
    """What an adapter says of the model that it is for: its id and commit on the hub, its directory, or its name."""
    model = step.model
    if model.plain is not model:
        raise UserError(
            f"{step.label} started from {model.name}, and PEFT cannot name that as a base; omit --adapter",
            file=step.path,
        )
    if isinstance(model, HubLMM):
        return {"base_model_name_or_path": model.hub, "revision": model.commit}
    return {"base_model_name_or_path": model.reference.partition(f"{MARK}{{")[0].removesuffix(THINKING)}


def _stages(step: Checkpoint, ledger: Ledger) -> list[_Stage]:
    """The adapters from the first stage to `step`."""
    with tensors_of(step, ledger) as chain:
        check_exportable(step, chain)
    stages: list[_Stage] = []
    at = step
    while at.parents:
        record = ledger.find(at)
        if record is None or record.fields.get("adapter", {}).get("kind") not in KINDS or len(at.parents) > 1:
            raise UserError(
                f"{at.label} is not a LoRA stage, so it has no adapter to export; omit --adapter", file=at.path
            )
        stages.insert(0, _read(at, ledger))
        at = at.parents[0]
    if not stages:
        raise UserError(f"{step.label} is the pre-trained model; it has no adapter", file=step.path)
    _check(step, stages, ledger)
    return stages


def _read(step: Checkpoint, ledger: Ledger) -> _Stage:
    from safetensors.torch import load_file

    with (
        ledger.opened(f"{step.path}/{FOLDER}", ADAPTER_CONFIG) as config,
        ledger.opened(f"{step.path}/{FOLDER}", ADAPTER_WEIGHTS) as file,
    ):
        return _Stage(json.loads(config.read_text(encoding="utf-8")), load_file(file))


def _check(step: Checkpoint, stages: list[_Stage], ledger: Ledger) -> None:
    """That the adapters are all that was trained, and can be added."""
    if len(stages) > 1 and any(stage.config["use_dora"] for stage in stages):
        raise UserError(
            f"{step.label}: {len(stages)} stages of DoRA are not one adapter; omit --adapter", file=step.path
        )
    layers = {frozenset(stage.tensors) for stage in stages}
    if len(layers) > 1:
        raise UserError(
            f"{step.label}: its stages adapted different layers, which are not one adapter; omit --adapter",
            file=step.path,
        )
    adapted = {name.removesuffix(LORA_A) for stage in stages for name in stage.tensors if name.endswith(LORA_A)}
    with tensors_of(step, ledger) as chain:
        other = sorted(name for name in chain.tensors if PEFT_PREFIX + name.removesuffix(".weight") not in adapted)
    if other:
        raise UserError(
            f"{step.label} trained {len(other)} tensors besides its adapter, such as {other[0]}; omit --adapter",
            file=step.path,
        )


def _joined(stages: list[_Stage]) -> dict[str, Tensor]:
    import torch

    modules = sorted({name.removesuffix(LORA_A) for stage in stages for name in stage.tensors if name.endswith(LORA_A)})
    joined: dict[str, Tensor] = {}
    for module in modules:
        joined[module + LORA_A] = torch.cat([stage.tensors[module + LORA_A] for stage in stages])
        joined[module + LORA_B] = torch.cat(
            [stage.scale * stage.tensors[module + LORA_B] for stage in stages], dim=1
        ).contiguous()
    return joined
