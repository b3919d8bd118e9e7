"""Who is taught: an LMM knows how to load itself, its processor, and which parameter plays which role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from lmmcl.errors import UserError
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings
from lmmcl.models.roles import RoleRule, assign_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class LMM(ABC):
    """A large multimodal model by name. Light to create: weights, torch and transformers come with the first load."""

    name: str
    family: ClassVar[str]
    rules: ClassVar[tuple[RoleRule, ...]]
    settings: ModelSettings = AS_IT_COMES
    """How a sweep lets it be asked."""
    knows_drawings: ClassVar[bool] = False
    """Whether drawn pictures are all that it knows, so that probes ask about those."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What enters a key: the name and what fixes the weights (a content digest, or a hub id with revision)."""

    @abstractmethod
    def role_counts(self) -> dict[str, int]:
        """Number of parameters in each role, known without torch so that `plan` is instant."""

    @abstractmethod
    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        """The pre-trained model, in evaluation mode. `precision` is fp32, bf16 or fp16."""

    @abstractmethod
    def load_processor(self) -> ProcessorMixin:
        """Tokenizer, image processor and chat template in one; pads on the left."""

    @property
    def label(self) -> str:
        """The name as a part of paths: letters, digits and `_ . -` only, and a function of the identity alone."""
        return self.name

    @property
    def reference(self) -> str:
        """What `get_model` finds this model by."""
        return self.name

    @property
    def plain(self) -> LMM:
        """The model whose shapes, roles and processor it has: itself, or the base of one that only has other weights."""
        return self

    @property
    def dropout_parts(self) -> tuple[str, ...]:
        """Parts (first words of roles) that have dropout while they train; `*` for one that belongs to no part."""
        return ()

    def with_settings(self, settings: ModelSettings) -> LMM:
        """The same model, asked in another way; raises UserError for a setting that it does not know."""
        settings.check(self.family)
        return replace(self, settings=settings)  # type: ignore[type-var]  # each of them is a dataclass

    def with_thinking(self) -> LMM:
        """The same model, which thinks before it answers; raises UserError for one that does not know how to."""
        raise UserError("this model has no thinking mode", file=f"model {self.name}")

    def about(self) -> dict[str, str]:
        """What a person may want to know: the family, and what its file says; where the weights are."""
        return {"family": self.family}

    def check(self) -> None:  # noqa: B027  # most models need nothing
        """Raises UserError when what loading needs is not at hand; says what is missing and how to fetch it.

        Light, and downloads nothing: called before anything starts. Models that ship need nothing.
        """

    def save_processor(self, directory: Path) -> None:
        """Write what the processor is loaded from into a `save_pretrained` directory."""
        self.load_processor().save_pretrained(directory)

    def roles_of(self, names: Iterable[str]) -> dict[str, str]:
        """The role of each parameter of a loaded model, by its name in `named_parameters()`."""
        return self.settings.roles(self._own_roles(names))

    def _own_roles(self, names: Iterable[str]) -> dict[str, str]:
        """The roles of a model as it comes."""
        return assign_roles(self.rules, names)
