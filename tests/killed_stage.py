"""A stage that is killed in training and then resumed."""

from __future__ import annotations

from typing import Any

import pytest

from lmmcl.config.cluster import TrainingPlacement
from lmmcl.ledger import Ledger
from lmmcl.steps import Finetune
from lmmcl.training.finetune import finetune


class Killed(BaseException):
    """As a process that is killed: nothing catches it."""


def finetune_killed_once(step: Finetune, ledger: Ledger, placement: TrainingPlacement, *, killed_at: int = 3) -> None:
    """Train a stage that is killed after an update, and then let it be resumed."""

    def die(shown: dict[str, Any]) -> None:
        if shown["update"] == killed_at:
            raise Killed

    with pytest.raises(Killed):
        finetune(step, ledger, placement, progress=die)
    finetune(step, ledger, placement)
