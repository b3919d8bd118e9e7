"""The tensors in which a checkpoint differs from its base, by the names that a `save_pretrained` directory gives them."""

from __future__ import annotations

from pathlib import Path

from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint, Pretrained
from lmmcl.weights.chain import tensors_of
from lmmcl.weights.checkpoint import check_exportable, load

WEIGHTS = "*.safetensors"


def export_base(step: Pretrained, ledger: Ledger, directory: Path, precision: str) -> None:
    """Write a pre-trained model in `precision` as a plain directory, with its processor."""
    loaded = load(step, ledger, precision, "cpu", "sdpa", shared=True)
    loaded.model.save_pretrained(directory)
    step.model.save_processor(directory)


def export_changed(step: Checkpoint, ledger: Ledger, directory: Path, precision: str) -> None:
    """Write what differs of `step` in `precision`, and nothing else; no file for what differs in nothing.

    Raises UserError for a model that no class of transformers can hold.
    """
    with tensors_of(step, ledger) as chain:
        check_exportable(step, chain)
    loaded = load(step, ledger, precision, "cpu", "sdpa", shared=True)
    own = dict(loaded.model.named_parameters()) | dict(loaded.model.named_buffers())
    directory.mkdir(parents=True, exist_ok=True)
    if changed := {name: own[name].detach() for name in sorted(loaded.changed)}:
        loaded.model.save_pretrained(directory, state_dict=changed)


def shapes_in(directory: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in the weights of a directory."""
    from safetensors import safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(directory.glob(WEIGHTS)):
        with safe_open(path, framework="pt") as file:
            shapes |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return shapes
