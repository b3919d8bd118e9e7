"""A recorded checkpoint as the model that another sweep starts from; its store may be another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError
from lmmcl.inspection.stored_trials import find_checkpoint
from lmmcl.ledger import Ledger
from lmmcl.ledger.named_store import open_ledger
from lmmcl.models.experts import describe
from lmmcl.models.inputs.model_settings import AS_IT_COMES, ModelSettings
from lmmcl.models.lmm import LMM
from lmmcl.models.pretrained import THINKING, named
from lmmcl.models.sources.derived import DerivedLMM
from lmmcl.steps import Recorded

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class StoredModel(DerivedLMM):
    """The weights of the checkpoint `key` in `store`. Equal checkpoints are the same model in whichever store."""

    store: str
    key: str
    base: LMM
    thinking: bool = False
    asked: ModelSettings = AS_IT_COMES
    """Settings beyond those that its sweep gave to the model."""

    @cached_property
    def ledger(self) -> Ledger:
        """The store."""
        return Ledger(self.store)

    @cached_property
    def step(self) -> Recorded:
        """The checkpoint as its store has it."""
        return self.ledger.checkpoint(self.key)

    @property
    def place(self) -> str:
        """How messages call it."""
        return f"checkpoint {self.key} of store {self.store}"

    @property
    def name(self) -> str:  # type: ignore[override]
        """The pre-trained model's name and the beginning of the key."""
        return f"{self.base.name}-{self.key[:8]}"

    @property
    def label(self) -> str:
        return f"{self.base.label}-from-{self.key}"

    @property
    def reference(self) -> str:
        return named(f"checkpoint:{self.key}@{self.store}" + (THINKING if self.thinking else ""), self.asked)

    def identity(self) -> dict[str, Any]:
        own = {"checkpoint": self.key, **({"thinking": True} if self.thinking else {})}
        return own | ({"settings": self.asked.identity()} if self.asked else {})

    def with_thinking(self) -> LMM:
        return replace(self, base=self.base.with_thinking(), thinking=True)

    @property
    def settings(self) -> ModelSettings:  # type: ignore[override]
        """How it is asked; quantised as its own sweep had it, or else as this one wants it."""
        own = self.base.settings
        return own if own.base else own.model_copy(update={"base": self.asked.base})

    def with_settings(self, settings: ModelSettings) -> LMM:
        own = self.base.settings.base
        if own and settings.base not in (None, own):
            raise UserError(
                f"base: its weights are quantised already ({own.describe()}); leave it out", file=self.place
            )
        # What this sweep quantises are the weights of the checkpoint, not those that it lies over.
        under = settings.model_copy(update={"base": own})
        asked = settings.model_copy(update={"base": None}) if own else settings
        return replace(self, base=self.base.with_settings(under), asked=asked)

    def about(self) -> dict[str, str]:
        return {"checkpoint": self.step.path, "store": self.store, "base": self.base.name, **self.base.about()}

    def check(self) -> None:
        """Raises UserError when the checkpoint's weights are not to be had."""
        super().check()
        for step in _chain(self.step):
            record = self.ledger.find(step)
            if record is None or not record.has_weights:
                raise UserError(
                    f"the weights of {step.label} ({step.key}) were removed (by `lmmcl gc`); run its sweep again",
                    file=self.place,
                )

    def load_model(self, *, precision: str = "fp32", device: str = "cpu", attention: str = "sdpa") -> PreTrainedModel:
        from lmmcl.weights.chain import tensors_of
        from lmmcl.weights.checkpoint import load_checkpoint

        self.check()
        with tensors_of(self.step, self.ledger) as chain:
            if chain.experts:
                raise UserError(
                    f"has {describe(chain.experts)}, and no sweep can start from such a model",
                    file=self.place,
                )
        step = replace(self.step, model=self.base)  # asked as this sweep asks it
        return load_checkpoint(step, self.ledger, precision=precision, device=device, attention=attention)


def start_model(wanted: str, stage: int | None, store: str) -> LMM:
    """The model after a stage of a trial (by default the last), or the checkpoint with a key; stage 0 is its pre-trained model.

    Raises UserError with the near names, and for weights that were removed.
    """
    ledger = open_ledger(store)
    ledger.check_exists()
    step = find_checkpoint(ledger, wanted if stage is None else f"{wanted}@{stage}")
    if not step.parents:
        return step.model
    model = StoredModel(ledger.store, step.key, step.model)
    model.check()
    return model


def _chain(step: Recorded) -> list[Any]:
    chain: list[Any] = [step]
    while chain[-1].parents and chain[-1].parents[0].parents:
        chain.append(chain[-1].parents[0])
    return chain
