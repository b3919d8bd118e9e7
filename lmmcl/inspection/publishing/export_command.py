"""What `lmmcl export` calls: weights, model card, and the way to the hub."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmmcl.atomic_files import write_text
from lmmcl.errors import UserError
from lmmcl.inspection.publishing.licence import CARD
from lmmcl.inspection.publishing.model_card import is_as_written, make_card
from lmmcl.inspection.publishing.push import check_push, is_export_of, push
from lmmcl.ledger import Ledger
from lmmcl.steps import Checkpoint


def export_checkpoint(
    step: Checkpoint, ledger: Ledger, folder: Path, *, adapter: bool, repository: str | None, public: bool
) -> Iterator[str]:
    """Export, and push where a repository is named; yields what to tell. A card that somebody edited stays.

    The card is made before weights are written: what it cannot be made of is known before minutes are spent.
    """
    if repository is None and public:
        raise UserError("--public goes with --push OWNER/NAME")
    if repository is not None:
        check_push(repository)
    name = repository.rpartition("/")[2] if repository else folder.resolve().name
    card = make_card(step, ledger, name=name, adapter=adapter, repository=repository)
    if repository is None or not is_export_of(folder, step, ledger, adapter=adapter):
        _write_weights(step, ledger, folder, adapter=adapter)
    if not (folder / CARD).exists() or (repository is not None and is_as_written(folder / CARD)):
        write_text(folder / CARD, card)
    yield f"exported {step.path.rsplit('/', 1)[1]} to {folder}"
    if adapter:
        from lmmcl.weights.adapter_export import vllm_command

        yield f"serve   {vllm_command(step, folder)}"
    if repository is not None:
        pushed = push(folder, repository, message=f"{step.label} ({step.key})", public=public)
        kind = "private" if pushed.is_private else "public"
        yield f"pushed to {pushed.url} ({kind}), revision {pushed.revision}"


def _write_weights(step: Checkpoint, ledger: Ledger, folder: Path, *, adapter: bool) -> None:
    if adapter:
        from lmmcl.weights.adapter_export import export_adapter

        export_adapter(step, ledger, folder)
    else:
        from lmmcl.weights import checkpoint

        checkpoint.export(step, ledger, folder)
