"""Mitigations: what protects the old while the new is learnt. One file each; this one holds the few hooks they share.

A mitigation is a frozen set of checked settings with a `version` that is raised whenever the same settings would
compute something else. It acts during training (TrainingMitigation) or afterwards (MergeMitigation).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lmmcl.errors import UserError
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.methods.stage_context import StageContext as StageContext

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from lmmcl.methods.on_policy.policy import Policy
    from lmmcl.models.lmm import LMM
    from lmmcl.tasks.examples import Example
    from lmmcl.tasks.probes import Probe
    from lmmcl.tasks.skills import Skill


StateT = TypeVar("StateT")
"""What a mitigation works out at its start and gets back in its other hooks."""
ROWS = "rows"
"""Key of a batch's rows: a tensor (batch,) of positions in the stage's examples."""
HIDDEN = "hidden"
"""Key of what the head was given for a batch, for mitigations that run the head: (batch, kept, width), like the logits."""
LABELS = "all_labels"
"""Key of a batch's labels before a mitigation masked some, where several are combined; see `start_model.kept_of`."""


def total(terms: Iterable[Tensor]) -> Tensor:
    """The sum of one or more scalar tensors, in their order."""
    return reduce(add, terms)


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

    def check_recipe(self, recipe: Recipe) -> None:  # most go with every one
        """Raises UserError when this cannot protect what `recipe` trains."""

    def check_model(self, lmm: LMM) -> None:
        """Raises UserError when a setting names something that the model does not have."""

    def check_trial(self, skills: Sequence[Skill], probes: Sequence[Probe]) -> None:
        """Raises UserError when this does not go with what a trial teaches, or what looks into its models."""

    @property
    def parts(self) -> tuple[Mitigation, ...]:
        """The mitigations that this consists of, in the order in which they act."""
        return (self,)

    @property
    def in_training(self) -> TrainingMitigation | None:
        """What acts inside a `Finetune` step."""
        return None

    @property
    def merges(self) -> tuple[MergeMitigation, ...]:
        """What acts after it, in order."""
        return ()


class TrainingMitigation(Mitigation, Generic[StateT]):
    """Acts inside a `Finetune` step. Override only what is needed; what `start` returns comes to the others as `state`.

    `StateT` is the type of that state, for the type checker: `class LwF(TrainingMitigation["dict[str, Tensor]"])`.

    Called in this order: data, start, optimizer; for every batch batch, token_weights, penalty and token_penalty; then end.
    A batch holds ROWS, which tells a mitigation that keeps something for each example whose turn it is.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, state: Any) -> type:
            """Itself: the type of the state is for the type checker alone, and torch is not imported for it."""
            return cls

    keeps_state: ClassVar[bool] = False
    """Whether what `start` returns is costly and holds plain tensors and numbers alone, in dictionaries, lists and tuples: it is
    then kept for a stage that is killed and resumed."""
    needs_all_logits: ClassVar[bool] = True
    """Whether `penalty` or `token_penalty` reads the logits before the one that predicts the first answer token of a batch;
    if not, those need not be computed: with a large vocabulary they are most of the memory."""
    replaces_cross_entropy: ClassVar[bool] = False
    """Whether the stage's answers are not taught: what is learnt comes from `sample_loss` alone."""
    scores_rows: ClassVar[bool] = False
    """Whether answers to the rows are scored by the metric of the stage's skill, and rows of other skills cannot be among them."""
    copies: ClassVar[int] = 0
    """Copies of all trained parameters, in fp32, that it holds on the GPU: what a plan tells of its memory."""

    @property
    def in_training(self) -> TrainingMitigation | None:
        return self

    def uses(self, hook: str) -> bool:
        """Whether this does something in a hook, by the hook's name."""
        return getattr(type(self), hook) is not getattr(TrainingMitigation, hook)

    @property
    def reads_all_logits(self) -> bool:
        """Whether a penalty reads more than the logits that predict answers."""
        return self.needs_all_logits and (self.uses("penalty") or self.uses("token_penalty"))

    @property
    def runs_head(self) -> bool:
        """Whether batches are to hold HIDDEN, since it runs the model's head itself."""
        return False

    @property
    def rows_in_pass(self) -> int:
        """Dialogues that go through the model for each row of a batch."""
        return 1

    @property
    def compares_logits(self) -> bool:
        """Whether `token_penalty` holds distributions over the vocabulary for all answer tokens of a batch."""
        return self.uses("token_penalty")

    def data(self, examples: Sequence[Example], earlier: Sequence[Skill], seed: int) -> Sequence[Example]:
        """The examples to train on in place of `examples`, for replay and data mixes. Must depend on the arguments alone.

        The number of updates stays that of `examples`, so that compute is the same with and without the mix.
        """
        return examples

    def start(self, context: StageContext) -> StateT | None:
        """Called once before the first update, and when a killed stage resumes: then too with the weights it started from."""
        return None

    def optimizer(self, state: StateT, model: PreTrainedModel, optimizer: Optimizer) -> None:
        """Called once with the optimizer, which takes hooks around each update (`register_step_pre_hook`, `…_post_hook`)."""

    def batch(self, state: StateT, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The padded CPU batch ((batch, length) each), changed: labels of -100 are not taught and not counted in the mean."""
        return batch

    def token_weights(self, state: StateT, logits: Tensor, tokens: Tensor) -> Tensor | None:
        """A factor of the cross entropy of each answer token of the batch, (tokens,); None leaves all at 1.

        `logits` (tokens, vocabulary), in fp32 and without gradient, predict `tokens` (tokens,), which are all counted.
        """
        return None

    def penalty(
        self, state: StateT, model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor | None:
        """A term (scalar tensor) that is added to the cross entropy of each batch; None adds nothing.

        Over the batches of one update, cut by accumulation or workers, the terms are averaged.
        """
        return None

    def token_penalty(
        self, state: StateT, model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor | None:
        """A sum (scalar tensor) over the answer tokens of the batch; None adds nothing.

        Divided, like the cross entropy, by the number of answer tokens of the whole update, so that it is the same
        however the update is cut by accumulation or workers.
        """
        return None

    def sample_loss(self, state: StateT, policy: Policy) -> Tensor | None:
        """A sum (scalar tensor) over the rows of a batch, of what the model samples to them; None adds nothing.

        Divided by the rows of the whole update, so that it is the same however the update is cut by accumulation or workers.
        """
        return None

    def counts(self, state: StateT) -> Mapping[str, Tensor]:
        """What is counted while a stage trains, by name, in place: each worker counts its own rows; kept in checkpoints."""
        return {}

    def moving(self, state: StateT) -> Mapping[str, Tensor]:
        """Tensors that change while a stage trains, by name, in place, the same in all workers; kept in checkpoints."""
        return {}

    def end(self, state: StateT, model: PreTrainedModel) -> None:
        """Called once after the last update; may change the trained parameters in place (under `torch.no_grad`)."""

    def findings(self, state: StateT) -> dict[str, Any]:
        """More fields for the step's record (JSON values): what it found out, or kept."""
        return {}


@dataclass
class MergeContext:
    """What a merge mitigation may see before the first tensor is merged.

    `names` are the tensors in which any fine-tune differs from the anchor, `sizes` their numbers of entries; `read(name)` gives the
    anchor's value and each fine-tune's, on the CPU, computed at each call; `load(i)` a whole model of fine-tune i of the caller's
    own, on `device`; `skills[i]` what fine-tune i was taught since the anchor, oldest first; `examples[i]` how many examples of
    each of them it saw (None: all).
    """

    lmm: LMM
    names: Sequence[str]
    sizes: Mapping[str, int]
    skills: Sequence[Sequence[Skill]]
    examples: Sequence[Sequence[int | None]]
    read: Callable[[str], tuple[Tensor, list[Tensor]]]
    load: Callable[[int], PreTrainedModel]
    device: str


class MergeMitigation(Mitigation, Generic[StateT]):
    """A `Merge` step after a stage: combines tensors of earlier checkpoints, one tensor at a time, without training.

    `continues_from` says where the next stage's fine-tune starts, and with it what is merged after stage k:

    - `merged`: from the merge of the stage before. Merged: that merge (the anchor) and the fine-tune from it.
    - `tuned`: from the fine-tune of the stage before, as if nothing were merged. Merged: the pre-trained model and the
      chain's latest fine-tune; all fine-tunes are those of a trial without mitigation.
    - `base`: from the pre-trained model, every skill apart. Merged: the pre-trained model and the fine-tunes of all k skills;
      of a skill that came again, the latest (see `lmmcl.steps.expert_merge`).

    It is left out of the identity: a step's parents say the same, and equal work has an equal name.
    """

    if not TYPE_CHECKING:

        def __class_getitem__(cls, state: Any) -> type:
            """Itself: the type of the state is for the type checker alone, and torch is not imported for it."""
            return cls

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    needs_model: ClassVar[bool] = False
    """Whether `prepare` runs a whole model; such a merge is given the device that training is given."""
    routes: ClassVar[bool] = False
    """Whether nothing is merged: the fine-tunes stay experts, and a router chooses one for each question (see `mr_lora`)."""
    only_first: ClassVar[str] = ""
    """Why this cannot follow another merge of a combination, after its name; empty where it can."""

    continues_from: Literal["merged", "tuned", "base"] = Field(
        default="merged", description="what is merged, and where the next stage starts"
    )

    @property
    def merges(self) -> tuple[MergeMitigation, ...]:
        return (self,)

    def check_recipe(self, recipe: Recipe) -> None:
        if recipe.adapter and recipe.adapter.adds_experts:
            raise UserError(
                f"{self.name} merges tensors that all checkpoints have, and {recipe.name!r} adds experts; allowed: recipes "
                "without experts, such as mlp or lora"
            )

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"name": self.name, "version": self.version, **self.model_dump(mode="json", exclude={"continues_from"})}

    @property
    def label(self) -> str:
        """`wise_ft(alpha=0.5,continues_from=tuned)`: the settings that differ from their defaults, `continues_from` last."""
        shown = self.model_dump(mode="json", exclude_defaults=True)
        last = shown.pop("continues_from", None)
        parts = [f"{k}={v}" for k, v in shown.items()] + ([f"continues_from={last}"] if last else [])
        return f"{self.name}({','.join(parts)})" if parts else self.name

    def prepare(self, context: MergeContext) -> StateT | None:
        """Called once before the first tensor; what it returns comes to the others as `state`."""
        return None

    def merge(self, state: StateT, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        """The merged tensor, of the shape and dtype of `anchor`; `tuned` holds each fine-tune's value, oldest first."""
        raise NotImplementedError

    def findings(self, state: StateT) -> dict[str, Any]:
        """More fields for the step's record (JSON values): what the merge found out."""
        return {}
