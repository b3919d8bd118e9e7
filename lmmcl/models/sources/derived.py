"""A model that has the parts and the processor of another, and other weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lmmcl.models.inputs.model_settings import ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.models.roles import RoleRule

if TYPE_CHECKING:
    from transformers import ProcessorMixin


class DerivedLMM(LMM):
    """An LMM over a `base`: all but the weights is the base's."""

    base: LMM

    @property
    @abstractmethod
    def name(self) -> str:  # type: ignore[override]
        """The name in trials and reports."""

    @property
    def plain(self) -> LMM:
        return self.base.plain

    @property
    def family(self) -> str:  # type: ignore[override]
        """The family of the base."""
        return self.base.family

    @property
    def rules(self) -> tuple[RoleRule, ...]:  # type: ignore[override]
        """The rules of the base."""
        return self.base.rules

    @property
    def settings(self) -> ModelSettings:  # type: ignore[override]
        """How the base is asked."""
        return self.base.settings

    @property
    def knows_drawings(self) -> bool:  # type: ignore[override]
        """Whether drawn pictures are all that the base knows."""
        return self.base.knows_drawings

    @property
    def dropout_parts(self) -> tuple[str, ...]:
        return self.base.dropout_parts

    def role_counts(self) -> dict[str, int]:
        return self.base.role_counts()

    def roles_of(self, names: Iterable[str]) -> dict[str, str]:
        return self.base.roles_of(names)

    def load_processor(self) -> ProcessorMixin:
        return self.base.load_processor()

    def save_processor(self, directory: Path) -> None:
        self.base.save_processor(directory)

    def check(self) -> None:
        """Raises UserError when what loading needs is not at hand."""
        self.base.check()
