"""The rows of the table of strategies: every kind of recipe, every mitigation, and every pair of kinds of mitigations.

They follow from what is registered: a new adapter, mitigation or place where mitigations act gets its row by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

from models.small_families import language, llava, save
from stage_parts import BASE, made_skill, shades, stage

from lmmcl.config.cluster import Cluster
from lmmcl.errors import UserError
from lmmcl.methods import get_mitigation, get_recipe, mitigation_names
from lmmcl.methods.combination import HOOKS
from lmmcl.methods.mitigation import MergeMitigation, Mitigation
from lmmcl.methods.recipes.recipe import KINDS, RECIPES
from lmmcl.models import get_model
from lmmcl.planning.fits import check_stage
from lmmcl.steps import Checkpoint, Finetune, Merge, Pretrained

PLACES: dict[str, dict[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp", "gpus_per_worker": 1},
    "zero2": {"strategy": "deepspeed", "zero_stage": 2},
    "zero3": {"strategy": "deepspeed", "zero_stage": 3},
}
"""By the words of `TrainingPlacement.strategy_name`, what a cluster file says."""
SMALL: dict[str, dict[str, Any]] = {
    "lora": {"rank": 4, "dropout": 0.0},
    "kappatune": {"rank": 4, "dropout": 0.0},
    "moelora": {"experts": 4, "rank": 8, "dropout": 0.0},
}
"""Settings of adapters that fit the small model; each worker draws a dropout of its own."""
STRONG: dict[str, dict[str, Any]] = {
    "data_hybrid": {"ratio": 0.5},
    "replay": {"examples": 8},
    "ewc": {"weight": 300.0, "examples": 6},
    "l2_sp": {"weight": 300.0},
    "lwf": {"weight": 8.0},
    "kl_to_start": {"weight": 8.0},
    "kl_on_samples": {"weight": 8.0},
    "sdft": {"rate": 0.5},
    "grpo": {"group": 4, "kl": 0.1, "temperature": 2.0},
    "o_lora": {"weight": 30.0},
    "token_masking": {"threshold": 50.0},
    "model_tailor": {"samples": 8},
}
"""Settings under which a mitigation shows after few updates."""
SLICE = {"name": "gate", "train": ["llm.blocks.*.mlp.gate"]}


@dataclass(frozen=True)
class Row:
    """One row: what trains, what protects, and its kind (`recipe`, `mitigation`, `combination`)."""

    kind: str
    name: str
    recipe: Any = "sa_proj"
    mitigation: tuple[str, ...] = ()
    fused: bool = False
    precision: str = "fp32"

    @property
    def protection(self) -> Mitigation | None:
        """Its mitigation, or the combination of several."""
        return get_mitigation([_setting(name) for name in self.mitigation]) if self.mitigation else None

    def finetune(self, folder: Path) -> Finetune:
        """Its stage, the second of a trial; `folder` takes the model that fuses tensors."""
        own = self.protection
        step = stage(
            own.in_training if own else None,
            parent=fused_base(folder) if self.fused else first_stage(),
            recipe=self.recipe,
            max_steps=4,
            warmup_ratio=0.0,
            precision=self.precision,
        )
        return _on_its_base(step) if getattr(step.recipe, "base", None) else step

    def last(self, folder: Path) -> Checkpoint:
        """Its last step: the stage, or the merge after it. A rule that routes leaves the stages as they are."""
        tuned = step = self.finetune(folder)
        for rule in self._merges:
            step = Merge(tuned.parent, (step,), rule)  # type: ignore[assignment]
        return step

    @property
    def _merges(self) -> list[MergeMitigation]:
        return [rule for rule in self.protection.merges if not rule.routes] if self.protection else []

    @property
    def changes_weights(self) -> bool:
        """Whether its mitigation makes other weights than a stage without one."""
        own = self.protection
        return own is not None and (own.in_training is not None or bool(self._merges))

    def plain(self) -> Row:
        """The same without protection."""
        return Row("recipe", "plain", self.recipe, (), self.fused, self.precision)

    def refusal(self, strategy: str, folder: Path) -> str | None:
        """Why a plan refuses it under a strategy, or None."""
        training = {"workers": 2, "micro_batch_size": 1, **PLACES[strategy]}
        try:
            check_stage(self.finetune(folder), Cluster.model_validate({"training": training}))
        except UserError as error:
            return error.message
        return None


def first_stage() -> Finetune:
    """The stage before: LoRA on another skill, in one process, so that there is something to replay and an adapter before."""
    skill = made_skill("earlier", shades(8, green=90))
    return stage(recipe={"lora": SMALL["lora"]}, skill=skill, max_steps=2, warmup_ratio=0.0)


@cache
def fused_base(folder: Path) -> Pretrained:
    """LLaVA on Phi-3, which holds gate and up in one tensor."""
    if not (folder / "fused").exists():
        config, processor = llava()
        config["text_config"] = language(processor.tokenizer, "phi3")
        save(folder / "fused", config, processor)
    return Pretrained(get_model(str(folder / "fused")))


def _on_its_base(step: Finetune) -> Finetune:
    """The stage over a model that is held as its recipe wants it, as a trial has it: the first of its trial."""
    from lmmcl.steps.trial_base import model_on_base, plain_recipe

    start = Pretrained(model_on_base(BASE.model, step.recipe))
    return replace(step, parent=start, recipe=plain_recipe(step.recipe))


def rows() -> list[Row]:
    """All rows, in the order of the table."""
    return [*recipe_rows(), *mitigation_rows(), *combination_rows()]


def recipe_rows() -> Iterator[Row]:
    """Components, slices, and each kind of adapter that is registered."""
    yield Row("recipe", "component", "sa_proj")
    yield Row("recipe", "component, head trains", "llm")
    yield Row("recipe", "all parameters", "full")
    yield Row("recipe", "component in bf16", "sa_proj", precision="bf16")
    rates = {"name": "rates", "train": ["llm.blocks.*.attention", "projector"], "learning_rates": {"projector": 3e-4}}
    yield Row("recipe", "several learning rates", rates)
    yield Row("recipe", "slices of fused tensors", SLICE, fused=True)
    for kind in KINDS:
        yield Row("recipe", kind, {name_of(kind): SMALL.get(kind, {})})
    yield Row("recipe", "lora with dora", {"lora": {**SMALL["lora"], "dora": True}})
    targets = {"kind": "lora", **SMALL["lora"], "targets": ["llm.blocks.*.attention"]}
    yield Row("recipe", "lora and a component", {"name": "both", "train": ["projector"], "adapter": targets})
    for name, recipe in RECIPES.items():
        if getattr(recipe, "base", None):  # QLoRA: over a quantised model
            yield Row("recipe", name, {name: SMALL["lora"]})


def name_of(kind: str) -> str:
    """The first recipe that ships with this kind of adapter."""
    return next(name for name, recipe in RECIPES.items() if recipe.adapter and recipe.adapter.kind == kind)


def mitigation_rows() -> Iterator[Row]:
    """Each mitigation by itself."""
    for name in mitigation_names():
        yield Row("mitigation", name, recipe_for(name), (name,))
        if name == "lwf":
            yield Row("mitigation", "lwf, head trains", "llm", ("lwf",))
            yield Row("mitigation", "lwf with top_k, head trains", "llm", ("lwf top_k",))
    yield Row("mitigation", "kl_to_start, head trains", "llm", ("kl_to_start",))
    yield Row("mitigation", "l2_sp in bf16", "sa_proj", ("l2_sp",), precision="bf16")


def combination_rows() -> Iterator[Row]:
    """For each pair of places where mitigations act, the first two that combine; and one of each place together."""
    by_place: dict[str, list[str]] = {}
    for name in mitigation_names():
        by_place.setdefault(place_of(name), []).append(name)
    for one, other in combinations_with_replacement(places(), 2):
        pairs = [(a, b) for a in by_place[one] for b in by_place[other] if a != b]
        pair = next((pair for pair in pairs if _combine(pair)), None)
        if pair:
            yield Row("combination", " + ".join(pair), recipe_for(*pair), pair)
    each = ("replay", "token_masking", "lwf", "l2_sp", "wise_ft")
    yield Row("combination", " + ".join(each), "sa_proj", each)


def places() -> list[str]:
    """Where the registered mitigations act, in their order."""
    used = {place_of(name) for name in mitigation_names()}
    return [place for place in (*HOOKS, "merge") if place in used]


def place_of(name: str) -> str:
    """Where a mitigation acts: the first of its hooks, or `merge`."""
    own = get_mitigation(_setting(name)).in_training
    return next(hook for hook in HOOKS if own.uses(hook)) if own else "merge"


def recipe_for(*names: str) -> Any:
    """A recipe that the mitigations take: attention, or LoRA where one of them needs an adapter."""
    try:
        for name in names:
            get_mitigation(_setting(name)).check_recipe(get_recipe("sa_proj"))
    except UserError:
        return {"lora": SMALL["lora"]}
    return "sa_proj"


def _combine(names: tuple[str, ...]) -> bool:
    try:
        get_mitigation([_setting(name) for name in names])
    except UserError:
        return False
    return True


def _setting(name: str) -> dict[str, Any]:
    if name == "lwf top_k":
        return {"lwf": {"weight": 8.0, "top_k": 16}}
    return {name: STRONG.get(name, {})}
