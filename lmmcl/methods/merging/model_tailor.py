"""Model Tailor: put most of a fine-tune back, and let the few entries that stay make up for it (Zhu et al., ICML 2024).

For each linear weight that a fine-tune moved, in the order in which the layers run, the entries with the highest fused
score of salience and sensitivity stay and are compensated (`tailor_layer.py`); all others return to the anchor bit by bit.
Patches of several skills are fused as W0 + Σ M_t·(D_t + C_t) / max(1, Σ M_t).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from lmmcl.errors import UserError
from lmmcl.methods.merging.calibration import Inputs, calibration_batches, calibration_examples
from lmmcl.methods.merging.tailor_layer import Compensation, Granularity, Tailored, tailor
from lmmcl.methods.merging.task_vectors import fused
from lmmcl.methods.mitigation import MergeContext, MergeMitigation
from lmmcl.methods.recipes.recipe import Recipe
from lmmcl.models.roles import resolve, select, selects

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear
    from transformers import PreTrainedModel

    from lmmcl.models.lmm import LMM


NO_LINEAR = ("norm", "embeddings")
"""Ends of roles under which no linear layer is."""


@dataclass(frozen=True)
class Patch:
    """The kept entries of one weight: positions in the flattened tensor and values, on the CPU."""

    positions: Tensor
    values: Tensor

    @classmethod
    def of(cls, tailored: Tailored) -> Patch:
        """What is kept of a tailored layer."""
        positions = tailored.mask.reshape(-1).nonzero().reshape(-1)
        return cls(positions.int().cpu(), tailored.weight.reshape(-1)[positions].cpu())

    def spread(self, anchor: Tensor) -> tuple[Tensor, Tensor]:
        """The values in the shape of `anchor` (its own elsewhere), and the mask of kept entries."""
        import torch

        value, mask = anchor.flatten().clone(), torch.zeros(anchor.numel(), dtype=torch.bool)
        value[self.positions.long()], mask[self.positions.long()] = self.values, True
        return value.reshape(anchor.shape), mask.reshape(anchor.shape)


@dataclass
class Patches:
    """The patches of each fine-tune by tensor name, and what tailoring lost at the layers' outputs."""

    by_finetune: list[dict[str, Patch]] = field(default_factory=list)
    linear: set[str] = field(default_factory=set)
    put_back: set[str] = field(default_factory=set)
    layers: int = 0
    relative_losses: list[tuple[float, float]] = field(default_factory=list)


class ModelTailor(MergeMitigation[Patches]):
    """Settings, by their letters in the paper: `keep` ρ, `salience` ω; `samples` calibration examples per merge of a skill.

    `sequential`: each layer sees inputs that passed through the tailored layers before it. `other` says what becomes of
    tensors that are not linear weights (norms, biases, embeddings, also a head tied to them): `reset` puts them back,
    `keep` leaves them as fine-tuned. At most the `keep` share of what was trained differs from the anchor with `reset`.
    `layers` and `put_back` are role selectors: linear weights that `layers` does not cover are treated as other tensors, and
    what `put_back` covers returns to the anchor before anything is tailored, as the projector does in the authors' script.
    """

    name = "model_tailor"
    version = 1
    only_first = "calibrates each fine-tune with examples of its own skill"
    needs_model: ClassVar[bool] = True

    keep: float = Field(default=0.1, gt=0, le=1, description="ρ, the share of entries that stay")
    salience: float = Field(default=0.5, ge=0, le=1, description="ω, the weight of |W1 − W0| in the score")
    samples: int = Field(default=128, gt=0, description="calibration examples of a skill")
    damping: float = Field(default=0.01, gt=0, description="share of H's mean diagonal that is added to it")
    compensation: Compensation = Field(default="obs", description="how entries that stay make up for the others")
    granularity: Granularity = Field(default="row", description="the region in which entries compete")
    other: Literal["reset", "keep"] = Field(default="reset", description="tensors that are not linear weights")
    layers: tuple[str, ...] = Field(
        default=(), description="role selectors of the linear weights that are patched; default all that moved"
    )
    put_back: tuple[str, ...] = Field(
        default=(), description="role selectors of what returns to the anchor in any case"
    )
    sequential: bool = Field(default=True, description="inputs pass through the tailored layers before")
    continues_from: Literal["merged", "tuned", "base"] = "base"

    def identity(self) -> dict[str, Any]:
        """What enters a key; settings that came later only where they are set."""
        unset = {name for name in ("layers", "put_back") if not getattr(self, name)}
        own = {name: value for name, value in super().identity().items() if name not in unset}
        return own | ({"block128": 2} if self.granularity == "block128" else {})

    def check_recipe(self, recipe: Recipe) -> None:
        super().check_recipe(recipe)
        if all(selector.rpartition(".")[2] in NO_LINEAR for selector in recipe.moves):
            raise UserError(
                f"model_tailor patches linear layers, and {recipe.name!r} trains none; allowed: recipes that train some, "
                "such as mlp or sa_proj"
            )

    def check_model(self, lmm: LMM) -> None:
        for selectors in (self.layers, self.put_back):
            select({role: role for role in lmm.role_counts()}, selectors, model=lmm.name)

    def prepare(self, context: MergeContext) -> Patches:
        """Tailor each fine-tune by itself, with examples of what it was taught; one whole model in memory at a time."""
        state = Patches(put_back=self._covered(context, self.put_back))
        for number in range(len(context.skills)):
            state.by_finetune.append(self._tailor(context, number, state))
        return state

    def merge(self, state: Patches, name: str, anchor: Tensor, tuned: Sequence[Tensor]) -> Tensor:
        """The fused patches of a linear weight; another tensor as `other` says, kept ones averaged over those that moved it."""
        import torch

        if name in state.linear:
            spread = [patches[name].spread(anchor) for patches in state.by_finetune if name in patches]
            return fused(anchor, [value for value, _ in spread], [mask for _, mask in spread])
        if self.other == "reset" or name in state.put_back:
            return anchor
        moved = [value for value in tuned if not torch.equal(value, anchor)]
        return fused(anchor, moved, [torch.ones_like(anchor, dtype=torch.bool)] * len(moved)) if moved else anchor

    def findings(self, state: Patches) -> dict[str, Any]:
        """How far layer outputs are from the fine-tune's on calibration inputs: mean over layers of ‖ΔX‖ / ‖W1·X‖."""
        tailored, masked = zip(*state.relative_losses, strict=True) if state.relative_losses else ((0.0,), (0.0,))
        return {
            "tailored_layers": state.layers,
            "output_error": sum(tailored) / len(tailored),
            "output_error_mask_only": sum(masked) / len(masked),
        }

    def _tailor(self, context: MergeContext, number: int, state: Patches) -> dict[str, Patch]:
        """The patches of one fine-tune, by tensor name."""
        examples = calibration_examples(context.skills[number], context.examples[number], self.samples)
        if not examples:
            raise UserError("model_tailor needs training examples to calibrate with, and the skill has none")
        model = context.load(number)
        layers = self._open(context, number, model, state)
        state.linear |= set(layers)
        inputs = Inputs(model, calibration_batches(context.lmm, examples), context.device)
        roles = context.lmm.roles_of(layers)
        patches: dict[str, Patch] = {}
        for group in inputs.groups(layers) if layers else []:
            first = group[0]
            hessian = inputs.hessian(first, layers[first], padded=roles[first].startswith("llm"))
            for name in group:
                done = self._tailor_layer(context.read(name)[0], layers[name], hessian)
                state.layers += 1
                state.relative_losses.append(_relative(done))
                patches[name] = Patch.of(done)
                if self.sequential:
                    layers[name].weight.data.copy_(done.weight)
        return patches

    def _open(self, context: MergeContext, number: int, model: PreTrainedModel, state: Patches) -> Mapping[str, Linear]:
        """The linear layers that this fine-tune moved, by the name of their weight; resets other tensors in `model` if asked to."""
        import torch

        own = dict(model.named_parameters())
        linear = {
            f"{name}.weight": layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)
        }
        patched = self._covered(context, self.layers) if self.layers else set(context.names)
        layers = {}
        for name in context.names:
            anchor, tuned = context.read(name)
            if torch.equal(anchor, tuned[number]):
                continue
            if name in linear and name in patched and name not in state.put_back:
                layers[name] = linear[name]
            elif name in state.put_back or (self.other == "reset" and self.sequential):
                own[name].data.copy_(anchor)
        return layers

    def _covered(self, context: MergeContext, selectors: Sequence[str]) -> set[str]:
        """The tensors whose roles `selectors` cover."""
        every = context.lmm.role_counts()
        wanted = [resolve(selector, every, model=context.lmm.name) for selector in selectors]
        roles = context.lmm.roles_of(context.names) if wanted else {}
        return {name for name, role in roles.items() if any(selects(one, role) for one in wanted)}

    def _tailor_layer(self, anchor: Tensor, layer: Linear, hessian: Tensor) -> Tailored:
        weight = layer.weight.data
        return tailor(
            anchor.to(weight.device),
            weight,
            hessian,
            keep=self.keep,
            salience=self.salience,
            damping=self.damping,
            compensation=self.compensation,
            granularity=self.granularity,
        )


def _relative(done: Tailored) -> tuple[float, float]:
    """‖ΔX‖ / ‖W1·X‖ with compensation and without; zero for a layer that puts out nothing."""
    if not done.scale:
        return 0.0, 0.0
    return (max(done.loss, 0.0) / done.scale) ** 0.5, (max(done.loss_mask_only, 0.0) / done.scale) ** 0.5


MITIGATIONS = (ModelTailor,)
