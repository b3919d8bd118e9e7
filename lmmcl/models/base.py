"""Who is taught: an LMM knows how to load itself, its processor, and which parameter plays which role."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from lmmcl.models.roles import RoleRule, assign_roles

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class LMM(ABC):
    """A large multimodal model by name. Light to create: weights, torch and transformers come with the first load."""

    name: str
    family: ClassVar[str]
    rules: ClassVar[tuple[RoleRule, ...]]

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

    def roles_of(self, names: Iterable[str]) -> dict[str, str]:
        """The role of each parameter of a loaded model, by its name in `named_parameters()`."""
        return assign_roles(self.rules, names)
