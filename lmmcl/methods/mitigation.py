"""Mitigations: what protects the old while the new is learnt. One file each; this one holds the few hooks they share.

A mitigation is a frozen set of checked settings with a `version` that is raised whenever the same settings would
compute something else. It acts during training (TrainingMitigation) or afterwards (MergeMitigation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lmmcl.errors import UserError, unknown
from lmmcl.registry import member, members

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from lmmcl.tasks.base import Example, Skill


class Mitigation(BaseModel):
    """Settings of one mitigation; subclasses give `name`, `version` and what they do."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    version: ClassVar[int]

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"name": self.name, "version": self.version, **self.model_dump(mode="json")}

    @property
    def label(self) -> str:
        """For names and paths: `wise_ft(alpha=0.5)`; only the settings that differ from their defaults."""
        shown = ",".join(f"{k}={v}" for k, v in self.model_dump(mode="json", exclude_defaults=True).items())
        return f"{self.name}({shown})" if shown else self.name


@dataclass
class StageContext:
    """What a training mitigation may see before the first update.

    `model` is the one that will train, on the device it trains on, still with the weights its stage starts from (copy
    what must be kept); `trained` names its trained parameters; `examples` are this stage's, `earlier` the skills taught
    before it, oldest first; `collate` makes a padded CPU batch with labels.
    """

    model: PreTrainedModel
    trained: Sequence[str]
    examples: Sequence[Example]
    earlier: Sequence[Skill]
    collate: Callable[[Sequence[Example]], dict[str, Tensor]]
    seed: int


class TrainingMitigation(Mitigation):
    """Acts inside a `Finetune` step. Override only what is needed; what `start` returns comes to the others as `memory`.

    Called in this order: data, start, optimizer; then batch and penalty for every batch; then end.
    """

    def data(self, examples: Sequence[Example], earlier: Sequence[Skill], seed: int) -> Sequence[Example]:
        """The examples to train on in place of `examples`, for replay and data mixes. Must depend on the arguments alone."""
        return examples

    def start(self, context: StageContext) -> Any:
        """Called once before the first update, and when a killed stage resumes: then too with the weights it started from."""
        return None

    def optimizer(self, memory: Any, model: PreTrainedModel, optimizer: Optimizer) -> None:
        """Called once with the optimizer, which takes hooks around each update (`register_step_pre_hook`, `…_post_hook`)."""

    def batch(self, memory: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The padded CPU batch, changed: labels masked with -100 are not taught and not counted in the mean."""
        return batch

    def penalty(self, memory: Any, model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]) -> Tensor | None:
        """A term (scalar tensor) that is added to the cross entropy of each batch; None adds nothing.

        Over the batches of one update, cut by accumulation or workers, the terms are averaged.
        """
        return None

    def end(self, memory: Any, model: PreTrainedModel) -> None:
        """Called once after the last update; may change the trained parameters in place (under `torch.no_grad`)."""


class MergeMitigation(Mitigation):
    """A `Merge` step after a stage: combines tensors of earlier checkpoints, one tensor at a time, without training."""

    continues_from: ClassVar[Literal["merged", "tuned"]] = "merged"
    """Where the next stage starts."""

    def merge(self, name: str, *, previous: Tensor, tuned: Tensor) -> Tensor:
        """The merged tensor. `previous` is the checkpoint that the stage started from, `tuned` the one it reached."""
        raise NotImplementedError


def mitigation_names() -> list[str]:
    """Names of all mitigations that ship."""
    return list(members("lmmcl.methods", "MITIGATIONS"))


def get_mitigation(spec: str | Mapping[str, Any]) -> Mitigation:
    """A mitigation from `name` or `{name: {setting: value}}`; raises UserError for unknown names and bad settings."""
    if isinstance(spec, str):
        spec = {spec: {}}
    if len(spec) != 1:
        raise UserError(f"a mitigation is a name or {{name: {{setting: value}}}}, not {dict(spec)!r}")
    [(name, settings)] = spec.items()
    kind: type[Mitigation] = member("lmmcl.methods", "MITIGATIONS", "mitigation", name)
    if not isinstance(settings or {}, Mapping):
        raise UserError(f"settings of {name} are a mapping such as {{setting: value}}, not {settings!r}")
    for setting in settings or {}:
        if setting not in kind.model_fields:
            raise UserError(unknown(f"setting of {name}", setting, kind.model_fields))
    try:
        return kind(**(settings or {}))
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{name}.{'.'.join(map(str, first['loc']))}: {first['msg']}, not {first['input']!r}") from error
