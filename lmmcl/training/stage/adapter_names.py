"""Names of an adapter's tensors while it trains and in PEFT's files; and the adapters of earlier stages by the former."""

from __future__ import annotations

from contextlib import suppress

from safetensors.torch import load_file
from torch import Tensor

from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint, stages_of
from lmmcl.weights.lora import ADAPTER_WEIGHTS, FOLDER, PEFT_PREFIX

ADAPTER_NAME = "default"


def trained_names(module: str) -> tuple[str, str, str]:
    """The names of A, B and (of DoRA) the norms of a layer's adapter while it trains."""
    a, b = (f"{module}.lora_{part}.{ADAPTER_NAME}.weight" for part in "AB")
    return a, b, f"{module}.lora_magnitude_vector.{ADAPTER_NAME}.weight"


def saved_name(name: str) -> str:
    """The name of an adapter's tensor in PEFT's files."""
    norms = f".lora_magnitude_vector.{ADAPTER_NAME}.weight"
    return PEFT_PREFIX + name.replace(norms, ".lora_magnitude_vector").replace(f".{ADAPTER_NAME}.", ".")


def earlier_adapters(checkpoint: Checkpoint, ledger: Ledger) -> list[dict[str, Tensor]]:
    """The LoRA adapters of the stages on the way to `checkpoint`, oldest first: lora_A and lora_B by the names that they have
    while they train. Stages without one are left out."""
    adapters: list[dict[str, Tensor]] = []
    for stage in stages_of(checkpoint):
        with suppress(FileNotFoundError), ledger.opened(f"{stage.path}/{FOLDER}", ADAPTER_WEIGHTS) as path:
            adapters.append({_trained_name(name): tensor for name, tensor in load_file(path).items()})
    return adapters


def _trained_name(name: str) -> str:
    own = name.removeprefix(PEFT_PREFIX)
    return own.replace(".lora_A.", f".lora_A.{ADAPTER_NAME}.").replace(".lora_B.", f".lora_B.{ADAPTER_NAME}.")
