"""Several mitigations in one trial: what combines, in which order each acts, and what is refused.

Data come first, then losses, then the optimizer, whatever the order in the sweep file; merges follow after training, in the order
of the file. Each merge takes the result of the one before in the place of the fine-tune, and measures it against the same anchor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import SerializeAsAny

from lmmcl.errors import UserError
from lmmcl.methods.data.mixing import Mix, flatten
from lmmcl.methods.mitigation import LABELS, MergeMitigation, Mitigation, StageContext, TrainingMitigation
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.tasks.examples import Example
from lmmcl.tasks.skills import Skill

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel

    from lmmcl.methods.on_policy.policy import Policy

ORDER = ("replay", "data_hybrid")
"""Data mitigations in the order in which they act: earlier skills join the stage's own data, then a mix takes its share of all."""
HOOKS = ("data", "batch", "token_weights", "token_penalty", "sample_loss", "penalty", "optimizer", "end")
"""What decides a training mitigation's place in a combination: the first of these that it has."""


_OF_ANSWERS = ("batch", "token_weights", "token_penalty")
"""Hooks that act on the answers that are taught."""


class CombinedTraining(TrainingMitigation[list[Any]]):
    """Several training mitigations as one: data and batches pass through each in order, penalties add.

    What each worked out at the start is kept apart, in the order of `members`.
    """

    version: ClassVar[int] = 1
    members: tuple[SerializeAsAny[TrainingMitigation], ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        """`replay+lwf`."""
        return "+".join(member.name for member in self.members)

    @property
    def copies(self) -> int:  # type: ignore[override]
        """Of all members together."""
        return sum(member.copies for member in self.members)

    @property
    def parts(self) -> tuple[Mitigation, ...]:
        return self.members

    @property
    def replaces_cross_entropy(self) -> bool:  # type: ignore[override]
        """Whether a member puts its own loss in the place of the cross entropy of the answers."""
        return any(member.replaces_cross_entropy for member in self.members)

    @property
    def rows_in_pass(self) -> int:
        return max(member.rows_in_pass for member in self.members)

    def identity(self) -> dict[str, Any]:
        """What enters a key: the members in the order in which they act."""
        return {"combined": [member.identity() for member in self.members], "version": self.version}

    def uses(self, hook: str) -> bool:
        return any(member.uses(hook) for member in self.members)

    @property
    def reads_all_logits(self) -> bool:
        return any(member.reads_all_logits for member in self.members)

    @property
    def runs_head(self) -> bool:
        return any(member.runs_head for member in self.members)

    @property
    def compares_logits(self) -> bool:
        return any(member.compares_logits for member in self.members)

    def data(self, examples: Sequence[Example], earlier: Sequence[Skill], seed: int) -> Sequence[Example]:
        """Each mix is made of the one before."""
        for member in self.members:
            examples = member.data(examples, earlier, seed)
        return flatten(examples) if isinstance(examples, Mix) else examples

    def start(self, context: StageContext) -> list[Any]:
        """What each member keeps, in order; all see the weights that the stage starts from."""
        return [member.start(context) for member in self.members]

    def optimizer(self, state: list[Any], model: PreTrainedModel, optimizer: Optimizer) -> None:
        for member, own in self._with(state):
            member.optimizer(own, model, optimizer)

    def batch(self, state: list[Any], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch as all members leave it; the labels that it had stay under LABELS, for what was kept of each answer token."""
        changed = batch
        for member, own in self._with(state):
            changed = member.batch(own, changed)
        return {**changed, LABELS: batch["labels"]}

    def token_weights(self, state: list[Any], logits: Tensor, tokens: Tensor) -> Tensor | None:
        """Those of the only member that gives any (see `combine`)."""
        weights = (member.token_weights(own, logits, tokens) for member, own in self._with(state))
        return next((factor for factor in weights if factor is not None), None)

    def penalty(
        self, state: list[Any], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor | None:
        return _sum(member.penalty(own, model, outputs, batch) for member, own in self._with(state))

    def token_penalty(
        self, state: list[Any], model: PreTrainedModel, outputs: Any, batch: Mapping[str, Tensor]
    ) -> Tensor | None:
        return _sum(member.token_penalty(own, model, outputs, batch) for member, own in self._with(state))

    def sample_loss(self, state: list[Any], policy: Policy) -> Tensor | None:
        return _sum(member.sample_loss(own, policy) for member, own in self._with(state))

    def counts(self, state: list[Any]) -> Mapping[str, Tensor]:
        return {f"{m.name}.{name}": value for m, own in self._with(state) for name, value in m.counts(own).items()}

    def moving(self, state: list[Any]) -> Mapping[str, Tensor]:
        return {f"{m.name}.{name}": value for m, own in self._with(state) for name, value in m.moving(own).items()}

    def end(self, state: list[Any], model: PreTrainedModel) -> None:
        for member, own in self._with(state):
            member.end(own, model)

    def findings(self, state: list[Any]) -> dict[str, Any]:
        """Those of all members, by name."""
        by_member = {member.name: member.findings(own) for member, own in self._with(state)}
        return {name: fields for name, fields in by_member.items() if fields}

    def _with(self, state: list[Any] | None) -> zip[tuple[TrainingMitigation, Any]]:
        return zip(self.members, state or [None] * len(self.members), strict=True)


def _sum(terms: Any) -> Any:
    """The sum of the terms that are there; None where none is."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


class Combination(Mitigation):
    """What one trial is protected by: training mitigations in the order in which they act, then merges in theirs."""

    version: ClassVar[int] = 1
    members: tuple[SerializeAsAny[Mitigation], ...]

    @property
    def name(self) -> str:  # type: ignore[override]
        """`replay+lwf+wise_ft`."""
        return "+".join(member.name for member in self.members)

    @property
    def label(self) -> str:
        """`replay(examples=5) + lwf + wise_ft(alpha=0.5)`."""
        return " + ".join(member.label for member in self.members)

    @property
    def parts(self) -> tuple[Mitigation, ...]:
        return self.members

    @property
    def in_training(self) -> TrainingMitigation | None:
        training = tuple(member for member in self.members if isinstance(member, TrainingMitigation))
        return CombinedTraining(members=training) if len(training) > 1 else training[0] if training else None

    @property
    def merges(self) -> tuple[MergeMitigation, ...]:
        return tuple(member for member in self.members if isinstance(member, MergeMitigation))

    def identity(self) -> dict[str, Any]:
        """What tells it from others; keys hold what acts in training and each merge apart."""
        return {"combined": [member.identity() for member in self.members], "version": self.version}

    def check_recipe(self, recipe: Recipe) -> None:
        for member in self.members:
            member.check_recipe(recipe)


def combine(members: Sequence[Mitigation]) -> Mitigation:
    """The combination of `members`, or the only one; raises UserError, with the reason, for what does not combine."""
    if not members:
        raise UserError("a combination names mitigations; null stands for none")
    names = [member.name for member in members]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name} is listed twice in one combination; allowed: each mitigation once")
    training = [member for member in members if isinstance(member, TrainingMitigation)]
    merges = [member for member in members if isinstance(member, MergeMitigation)]
    _check_weights(training)
    _check_samples(training)
    _check_optimizers(training)
    _check_merges(merges)
    ordered = (*sorted(training, key=_place), *merges)
    return Combination(members=ordered) if len(ordered) > 1 else ordered[0]


def _place(member: TrainingMitigation) -> tuple[int, int, str]:
    hook = next((number for number, hook in enumerate(HOOKS) if member.uses(hook)), len(HOOKS))
    return hook, ORDER.index(member.name) if member.name in ORDER else len(ORDER), member.name


def _check_weights(training: Sequence[TrainingMitigation]) -> None:
    names = [member.name for member in training if member.uses("token_weights")]
    if len(names) > 1:
        raise UserError(
            f"{' and '.join(names)} both weight the cross entropy of each token, each as if it were whole; allowed: one of them"
        )


def _check_samples(training: Sequence[TrainingMitigation]) -> None:
    """What learns from the model's own answers alone has no cross entropy that others could change."""
    for member in training:
        others = [other for other in training if other is not member]
        if member.replaces_cross_entropy:
            for other in others:
                if hook := next((hook for hook in ("sample_loss", *_OF_ANSWERS) if other.uses(hook)), None):
                    what = (
                        "learns from samples as well"
                        if hook == "sample_loss"
                        else "acts on the answers that are taught"
                    )
                    raise UserError(
                        f"{member.name} teaches no answer, only what the model samples, and {other.name} {what}; allowed with it: "
                        "data mixes, penalties on weights, optimizers, merges"
                    )
        if member.scores_rows and (mixed := next((other.name for other in others if other.uses("data")), None)):
            raise UserError(
                f"{member.name} scores all answers by the metric of the stage's skill, and {mixed} mixes in questions of others; "
                "allowed: one of them"
            )


def _check_optimizers(training: Sequence[TrainingMitigation]) -> None:
    names = [member.name for member in training if member.uses("optimizer")]
    if len(names) > 1:
        raise UserError(
            f"{' and '.join(names)} both rewrite the optimizer's update, each as if it were AdamW's own; allowed: one of them"
        )


def _check_merges(merges: Sequence[MergeMitigation]) -> None:
    """Merges of one combination share their anchor, which is the first one's."""
    for later in merges[1:]:
        first = merges[0]
        if routing := next((member for member in merges if member.routes), None):
            other = first if routing is later else later
            raise UserError(
                f"{routing.name} keeps an expert for each skill apart, and {other.name} combines weights of one model; allowed: "
                f"one of them, or {routing.name} with mitigations that act in training"
            )
        if "continues_from" in later.model_fields_set and later.continues_from != first.continues_from:
            raise UserError(
                f"{later.name} has continues_from: {later.continues_from}, and {first.name}, the first merge of the combination, "
                f"{first.continues_from}; allowed: the same, or only in {first.name}"
            )
        if later.only_first:
            remedy = "one of them" if first.only_first else f"{later.name} as the first merge"
            raise UserError(f"{later.name} {later.only_first}, and {first.name} leaves one model; allowed: {remedy}")
