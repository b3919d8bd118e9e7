"""What a stage keeps for being resumed: the Trainer's checkpoints, apart for each store."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from lmmcl.errors import UserError
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune, Snapshot

log = logging.getLogger(__name__)


def runs_folder(ledger: Ledger, step: Finetune | Snapshot) -> Path:
    """Where the Trainer's own checkpoints go: beside the store, or in this node's folder for a remote one."""
    return Path(ledger.store if ledger.is_local else ledger.node.folder, "runs", step.key)


def remove_run(ledger: Ledger, step: Finetune | Snapshot) -> None:
    """Delete what a resumed stage would have needed. A failure to do so hides no error of the stage."""
    shutil.rmtree(runs_folder(ledger, step), ignore_errors=True)
    if not ledger.is_local:
        try:
            ledger.remove_run(step.key)
        except (UserError, OSError) as error:
            log.warning("%s: its resume files could not be removed: %s", step.label, error)
