"""Recipes: which parameters train; all others stay frozen. A recipe is data — a new one is one entry here or in a sweep.

`full` to `sa_qkv` are the component recipes of LMM-CL (arXiv 2510.08564, section 3); `lora` and `moe` are what it compares with.
`a+b` trains the union of two recipes. In a sweep:

    recipe: [sa_proj, gate_up+projector, {lora: {rank: 8, alpha: 16}},
             {name: late, train: [llm.blocks.last-4.mlp, vision], learning_rates: {vision: 2.0e-6}},
             {name: lora8, train: [projector], adapter: {kind: lora, rank: 8, targets: [llm.blocks.*.attention]}},
             {lora: {rank: 8, base: {quantize: nf4}}}]
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, field_validator, model_validator

from lmmcl.errors import UserError, shown, unknown, unknown_key
from lmmcl.methods.recipes.adapters import ATTENTION, MLP, OSF, Adapter, KappaTune, LoRA, MoE
from lmmcl.methods.recipes.moelora import MoELoRA
from lmmcl.models.quantized.base_settings import BaseSettings
from lmmcl.models.roles import resolve, selects
from lmmcl.named_settings import build, check_settings, validated
from lmmcl.registry import members

KINDS: Mapping[str, type[Adapter]] = {"lora": LoRA, "kappatune": KappaTune, "osf": OSF, "moe": MoE, "moelora": MoELoRA}


class Recipe(BaseModel):
    """A name, the role selectors that train (see `lmmcl.models.roles`), an adapter, and learning rates of their own.

    `learning_rates` maps selectors to peak rates; what none of them covers has the trial's `learning_rate`, and of several the
    one with the most parts holds. All but the name enters a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    train: tuple[str, ...] = ()
    adapter: SerializeAsAny[Adapter] | None = None
    learning_rates: tuple[tuple[str, float], ...] = ()
    partial: bool = Field(default=False, description="train it even where it reaches under a tenth of what it names")
    base: BaseSettings | None = None
    """How the weights that it trains on are held. In a trial it is a setting of the model (see `lmmcl.steps.trial_base`)."""

    @field_validator("train")
    @classmethod
    def _canonical(cls, selectors: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(selectors)))

    @field_validator("adapter", mode="before")
    @classmethod
    def _of_its_kind(cls, value: Any) -> Any:
        return make_adapter(value) if isinstance(value, Mapping) else value

    @field_validator("learning_rates", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        pairs = isinstance(value, tuple | list) and all(isinstance(pair, tuple | list) for pair in value)
        if not pairs and not isinstance(value, Mapping):
            raise ValueError(f"learning rates are a mapping such as {{vision: 2.0e-6}}, not {shown(value)}")
        return tuple(sorted(value.items(), key=lambda pair: str(pair[0]))) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _trains_something(self) -> Recipe:
        if not self.train and self.adapter is None:
            raise ValueError("trains nothing: give `train` (role selectors) or `adapter`")
        if wrong := [f"{selector}: {rate}" for selector, rate in self.learning_rates if not rate > 0]:
            raise ValueError(f"learning rates are above 0, not {', '.join(wrong)}")
        if self.learning_rates and isinstance(self.adapter, KappaTune):
            raise ValueError(
                "learning_rates cannot be combined with kappatune, which chooses its layers only when a stage begins"
            )
        return self

    @property
    def selectors(self) -> tuple[str, ...]:
        """All role selectors: of what trains itself, and of what an adapter trains for."""
        return (*self.train, *(self.adapter.targets if self.adapter else ()))

    @property
    def moves(self) -> tuple[str, ...]:
        """Selectors of what is other after a stage."""
        return (*self.train, *(self.adapter.moves if self.adapter else ()))

    def identity(self) -> dict[str, Any]:
        """What enters a key: equal settings are the same recipe under any name. What is not used is left out.

        `partial` only allows what would be refused, so it is left out.
        """
        identity: dict[str, Any] = {"train": list(self.train)}
        if self.adapter:
            identity["adapter"] = self.adapter.identity()
        if self.learning_rates:
            identity["learning_rates"] = dict(self.learning_rates)
        if self.base:
            identity["base"] = self.base.identity()
        return identity

    @property
    def description(self) -> str:
        """What it trains, in a line."""
        parts = [", ".join(self.train)] if self.train else []
        parts += [f"{self.adapter.label} on {', '.join(self.adapter.targets)}"] if self.adapter else []
        return "trains " + " and ".join(parts) + (f" over {self.base.describe()} weights" if self.base else "")

    @property
    def label(self) -> str:
        """A name that depends on the identity alone, for paths: a user's own name would make equal work two folders."""
        known = _SHIPPED.get((self.train, self.adapter))
        parts = [self.adapter.label] if self.adapter else []
        parts += [_SHIPPED.get((self.train, None), "custom")] if self.train else []
        return (known or "-".join(parts)) + ("-rates" if self.learning_rates else "")

    def rates(self, trained: Collection[str], roles: Collection[str], *, model: str) -> dict[str, float]:
        """Of the roles that train (some of the model's `roles`), those with a learning rate of their own, and which.

        Raises UserError for a selector that covers nothing that trains, and where two equally exact ones differ.
        """
        by_role: dict[str, tuple[int, float]] = {}
        for selector, rate in sorted(self.learning_rates, key=lambda pair: pair[0].count(".")):
            parts, resolved = selector.count("."), resolve(selector, roles, model=model)
            hits = [role for role in trained if selects(resolved, role)]
            if not hits:
                raise UserError(
                    f"recipe {self.name}: learning_rates: {selector!r} covers nothing that trains in {model}"
                )
            for role in hits:
                if role in by_role and by_role[role][0] == parts and by_role[role][1] != rate:
                    raise UserError(
                        f"recipe {self.name}: learning_rates: {role} has two, {by_role[role][1]:g} and {rate:g}"
                    )
                by_role[role] = (parts, rate)
        return {role: rate for role, (_, rate) in by_role.items()}


def make_adapter(settings: Mapping[str, Any]) -> Adapter:
    """An adapter from its settings; `kind` is lora where none is given. Raises UserError for unknown names and bad values."""
    name = settings.get("kind", "lora")
    if name not in KINDS:
        raise UserError(unknown("kind of adapter", str(name), KINDS))
    return build(KINDS[name], str(name), settings)


_TRAIN: dict[str, tuple[str, ...]] = {
    "full": ("*",),  # also what only some families have, such as a Q-Former
    "vision": ("vision",),
    "projector": ("projector",),
    "llm": ("llm",),
    "mlp": (MLP,),
    "gate_up": (f"{MLP}.gate", f"{MLP}.up"),
    "sa_proj": (ATTENTION,),
    "sa_qkv": (f"{ATTENTION}.q", f"{ATTENTION}.k", f"{ATTENTION}.v"),
    "mlp_down": (f"{MLP}.down",),
    "sa_vo": (f"{ATTENTION}.v", f"{ATTENTION}.o"),
    "vision_attention": ("vision.blocks.*.attention",),
    "vision_mlp": ("vision.blocks.*.mlp",),
    "embeddings": ("llm.embeddings",),
    "norms": ("llm.blocks.*.norm", "llm.norm"),
    "head": ("llm.head",),
    # Of models that have them: token mixers and MLPs by kind, and parts beside them.
    "sa_softmax": (f"{ATTENTION}.*.softmax",),
    "sa_linear": (f"{ATTENTION}.*.linear",),
    "ca_proj": ("llm.blocks.*.cross_attention",),
    "experts": (f"{MLP}.*.routed",),
    "shared_experts": (f"{MLP}.*.shared",),
    "dense_mlp": (f"{MLP}.*.dense",),
    "router": ("llm.blocks.*.router",),
    "per_layer_embeddings": ("llm.per_layer_embeddings", "llm.blocks.*.per_layer"),
    "audio": ("audio",),
}
_ADAPTERS: dict[str, Adapter] = {
    "lora": LoRA(),  # LMM-CL, compared mitigations
    "lora_attention": LoRA(targets=(ATTENTION,)),
    "lora_all": LoRA(targets=(ATTENTION, MLP)),
    "kappatune": KappaTune(),
    "osf": OSF(),
    "moe": MoE(),  # LMM-CL, compared mitigations
    "moelora": MoELoRA(),  # CoIN, and a baseline of MLLM-CL
}

RECIPES: dict[str, Recipe] = {
    **{name: Recipe(name=name, train=selectors) for name, selectors in _TRAIN.items()},
    **{name: Recipe(name=name, adapter=adapter) for name, adapter in _ADAPTERS.items()},
    "qlora": Recipe(name="qlora", adapter=_ADAPTERS["lora_all"], base=BaseSettings(quantize="nf4")),
}

NOT_OFFERED: Mapping[str, str] = {
    "corda": "CorDA (arXiv 2406.05223) takes its adapters out of the weights before training, which rounds every entry of a "
    "half-precision layer, so that frozen weights cannot be proved unchanged; alternatives: osf (keeps each layer's large "
    "singular directions), kappatune and lora",
}
"""Names that people look for, and why there is no such recipe."""

_SHIPPED = {(recipe.train, recipe.adapter): recipe.name for recipe in RECIPES.values() if recipe.base is None}


def get_recipe(spec: str | Mapping[str, Any]) -> Recipe:
    """The recipe of a sweep's entry: a name or a union `a+b`; `{name, train, adapter, learning_rates}`; or `{lora: {rank: 8}}`,
    one that ships with other settings.

    Raises UserError with the nearest names for what is unknown, and for bad settings.
    """
    if isinstance(spec, str):
        return _union(spec)
    if len(spec) == 1 and (name := next(iter(spec))) not in Recipe.model_fields:
        return _changed(str(name), spec[name])
    for key in spec:
        if key not in Recipe.model_fields:
            raise UserError(f"recipe: {unknown_key('key', key, Recipe.model_fields)}")
    return _recipe(dict(spec))


def _recipe(fields: dict[str, Any], place: str = "") -> Recipe:
    return validated(Recipe, place or f"recipe {fields.get('name', '')}".rstrip(), fields)


def _union(name: str) -> Recipe:
    parts = []
    for part in name.split("+"):
        if part in NOT_OFFERED:
            raise UserError(f"{shown(part)} is not a recipe: {NOT_OFFERED[part]}")
        if part not in RECIPES and part in members("lmmcl.methods", "MITIGATIONS"):
            raise UserError(f"{shown(part)} is a mitigation, not a recipe; allowed in `mitigation: [{part}]`")
        if part not in RECIPES:
            raise UserError(unknown("recipe", part, RECIPES))
        parts.append(RECIPES[part])
    if len(parts) == 1:
        return parts[0]
    adapters = [part.adapter for part in parts if part.adapter]
    if len(adapters) > 1:
        raise UserError(f"{name!r} has {len(adapters)} adapters; allowed: one (its targets may be several)")
    return Recipe(
        name=name,
        train=tuple(s for part in parts for s in part.train),
        adapter=next(iter(adapters), None),
        base=next((part.base for part in parts if part.base), None),
    )


def _changed(name: str, settings: Any) -> Recipe:
    """A recipe that ships with some settings changed: those of its adapter, learning rates, or what it trains on."""
    recipe = _union(name)
    own = set(type(recipe.adapter).model_fields) - {"kind"} if recipe.adapter else set()
    changed = check_settings(name, settings, {*own, "learning_rates", "partial", "base"})
    in_name = dict(changed)
    more = {"learning_rates": changed.pop("learning_rates", {}), "partial": changed.pop("partial", False)}
    more["base"] = changed.pop("base", recipe.base)
    adapter = make_adapter({**recipe.adapter.model_dump(), **changed}) if recipe.adapter else None
    built = _recipe({"name": name, "train": recipe.train, "adapter": adapter, **more}, place=name)
    if built.base and "base" in in_name:
        in_name["base"] = built.base.describe()
    changes = ",".join(f"{key}={value}" for key, value in in_name.items())
    return built.model_copy(update={"name": f"{name}({changes})"}) if changes else built
