"""Errors of stages that cannot be finished although their input was well formed, or that are not finished yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmmcl.errors import UserError

if TYPE_CHECKING:
    from lmmcl.steps import Finetune


class PreemptedError(Exception):
    """A stage that was asked to end (SIGTERM) and has saved where it is."""


class StageError(UserError):
    """A stage that computed something unusable (a loss that is not finite, a frozen tensor that moved); nothing is recorded."""

    @classmethod
    def of(cls, step: Finetune, message: str) -> StageError:
        """The error of `step`, told with its label and key."""
        return cls(message, place=f"{step.label} ({step.key})")
