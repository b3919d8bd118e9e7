"""From a recipe to a model that is ready to train, and back to the tensors that a checkpoint holds.

A plain recipe trains the model's own tensors. An adapter (LoRA, OSF; through PEFT) is put into the model before the stage and
merged into its weights after. Of LoRA the checkpoint holds the adapter, which whoever loads it merges again, to the same bits
(`lmmcl.weights.lora`); of OSF, whose parts are as large as the weights, the merged weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from lmmcl.methods.recipes.adapters import OSF, Adapter, KappaTune, LoRA
from lmmcl.models.experts import roles_in
from lmmcl.models.linears import linear_modules
from lmmcl.models.partition.fused import Slice, select_slices
from lmmcl.models.quantized.nf4 import add_beside, earlier_names, nf4_layers
from lmmcl.models.roles import select
from lmmcl.steps import Finetune, Pretrained
from lmmcl.training.stage.adapter_names import ADAPTER_NAME, saved_name, trained_names
from lmmcl.training.stage.condition import best_conditioned
from lmmcl.training.stage.subspace import Subspaces, layers_of
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.delta import adapter_header
from lmmcl.weights.fast_digest import fast_digests
from lmmcl.weights.lora import FOLDER, LayerAdapter, scale_of, write_adapter
from lmmcl.weights.quantized_base import named_tensors
from lmmcl.weights.resident import digest_tensors


class TrainableModel:
    """The model of a stage.

    `trained` are the names of the parameters that train, `roles` the role of every parameter, and `saved_names` the names of the
    tensors that may differ when the stage is done.
    """

    def __init__(self, step: Finetune, model: PreTrainedModel) -> None:
        self.step, self.model = step, model
        self.roles = roles_in(step.model, model)
        self.trained = sorted(select(self.roles, step.recipe.train, model=step.model.name))
        self.saved_names = list(self.trained)
        self.after_update: Callable[[], None] | None = None
        """What is done to the trained parameters after each update."""
        self.added_names: list[str] = []
        """Tensors that the model had not, and that stay in it."""
        self.slices = select_slices(model, self.roles, step.recipe.train, name=step.model.name)
        """Of the fused tensors that train in part: the slice that does, and the slice that does not."""

    def mask_gradients(self) -> None:
        """Let no gradient reach what does not train of a fused tensor; called when it was decided what learns."""
        own = dict(self.model.named_parameters())
        for name, (_, frozen) in self.slices.items():
            own[name].register_hook(partial(_without, frozen=frozen))

    def frozen_slices(self) -> dict[str, Tensor]:
        """What does not train of fused tensors, as tensors of their own by the keys of their slices."""
        own = dict(self.model.named_parameters())
        return {frozen.key(name): frozen.take(own[name].detach()) for name, (_, frozen) in self.slices.items()}

    def saved_tensors(self, names: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a delta holds of `names`: whole tensors by their names, slices by their keys."""
        saved = {}
        for name in names:
            if name in self.slices:
                trained, _ = self.slices[name]
                saved[trained.key(name)] = trained.take(tensors[name].detach())
            else:
                saved[name] = tensors[name]
        return saved

    def sizes(self) -> dict[str, tuple[int, int]]:
        """(entries, bytes) of what trains, by parameter name; of a fused tensor those of its slice."""
        own = dict(self.model.named_parameters())
        entries = {name: own[name].numel() for name in self.trained}
        entries |= {name: trained.size(tuple(own[name].shape)) for name, (trained, _) in self.slices.items()}
        return {name: (number, number * own[name].element_size()) for name, number in entries.items()}

    def rates(self) -> dict[str, float]:
        """Learning rates by parameter name, of those that have their own."""
        trained = {self.roles[name] for name in self.trained}
        rates = self.step.recipe.rates(trained, set(self.roles.values()), model=self.step.model.name)
        return {name: rates[self.roles[name]] for name in self.trained if self.roles[name] in rates}

    def merge_adapters(self, before: Mapping[str, str], output: Path) -> dict[str, Any]:
        """Bring what was trained into the model's own tensors; returns fields for the record.

        `before` are fast digests of all tensors at the stage's start. Files that belong to the step go to `output`.
        """
        return {}

    def adapter_header(self) -> dict[str, Any] | None:
        """What the delta says of the adapter that is stored in the place of tensors into which it is merged by now."""
        return None


class Adapted(TrainableModel):
    """A model with PEFT's adapters. Raises StageError when other layers were adapted than the recipe selects."""

    def __init__(self, step: Finetune, model: PreTrainedModel, adapter: Adapter) -> None:
        super().__init__(step, model)
        self.adapter = adapter
        chosen = select(self.roles, adapter.targets, model=step.model.name)
        layers = {**linear_modules(model), **nf4_layers(model)}
        self.targets = {name: layers[name] for name, _ in model.named_parameters() if name in chosen & layers.keys()}
        if isinstance(adapter, KappaTune):
            self.targets = best_conditioned(self.targets, adapter.chosen(len(self.targets)))
        self.quantized = {name: layer for name, layer in self.targets.items() if name in nf4_layers(model)}
        """Targets whose weights are in 4 bits: their adapters stay beside them."""
        self.config = _peft_config(adapter, [module_of(name) for name in self.targets])
        self.tuner = self._inject()
        self.subspaces = Subspaces(layers_of(model, self.targets)) if isinstance(adapter, OSF) else None
        self.after_update = self.subspaces.project if self.subspaces else None
        added = [name for name, _ in model.named_parameters() if _own_name(name) not in self.roles]
        self._check({name for name, _ in model.named_parameters() if ".base_layer." in name})
        self.roles |= {name: self._role(name) for name, _ in model.named_parameters()}
        self.trained = sorted([*self.trained, *added])
        self.added = added
        self._beside_names = [beside for name in self.quantized for beside in earlier_names(name)]
        self.saved_names = sorted([*self.saved_names, *self._merged_names, *self._beside_names])

    def _inject(self) -> Any:
        """Put fresh adapters in; what they start from depends on the seed and the number of the stage alone."""
        from peft.tuners.lora import LoraModel
        from peft.tuners.osf import OSFModel

        kind = LoraModel if isinstance(self.adapter, LoRA) else OSFModel
        seed = stage_seed(self.step)
        with (
            torch.random.fork_rng(devices=[]),
            _in_fp32([self.targets[name] for name in self._merged_names], unchanged=isinstance(self.adapter, LoRA)),
        ):
            torch.manual_seed(seed)
            return kind(self.model, self.config, ADAPTER_NAME)

    @property
    def _merged_names(self) -> list[str]:
        return [name for name in self.targets if name not in self.quantized]

    def _check(self, wrapped: set[str]) -> None:
        adapted = {_own_name(name) for name in wrapped if name.endswith(".weight")}
        if adapted != set(self.targets):
            wrong = sorted(adapted ^ set(self.targets))
            raise StageError.of(
                self.step, f"expected adapters on {len(self.targets)} layers, found {len(adapted)}; {wrong[:3]}"
            )

    def _role(self, name: str) -> str:
        """An adapter's parameters have the role of the weight that they are for."""
        own = _own_name(name)
        if own in self.roles:
            return self.roles[own]
        return next(self.roles[target] for target in self.targets if name.startswith(f"{module_of(target)}."))

    def merge_adapters(self, before: Mapping[str, str], output: Path) -> dict[str, Any]:
        own = named_tensors(self.model)
        self._check_untouched(before, own)
        fields: dict[str, Any] = {"kind": self.adapter.kind, "layers": len(self.targets)}
        if isinstance(self.adapter, KappaTune):
            fields["chosen"] = sorted(self.targets)
        if self.quantized:
            fields["quantized_layers"] = len(self.quantized)
        fields["parameters"] = sum(own[name].numel() for name in self.added)
        if isinstance(self.adapter, LoRA):
            fields["bytes"] = self._save(output / FOLDER, own)
            self._merge_lora(own)
        else:
            fields |= self._merge_osf()
        return {"adapter": fields}

    def adapter_header(self) -> dict[str, Any] | None:
        if not isinstance(self.adapter, LoRA):
            return None
        own = dict(self.model.named_parameters())
        digests = digest_tensors({name: own[name] for name in self._merged_names})
        return adapter_header(scale_of(self.config.to_dict()), digests, self.quantized)

    def saved_tensors(self, names: Iterable[str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Without the tensors that LoRA's adapter, which is saved in their place, gives again."""
        in_adapter = {*self.targets, *self._beside_names} if isinstance(self.adapter, LoRA) else set()
        return super().saved_tensors([name for name in names if name not in in_adapter], tensors)

    def _check_untouched(self, before: Mapping[str, str], own: Mapping[str, Tensor]) -> None:
        """Until the merge nothing but the adapter has moved: raises StageError otherwise."""
        frozen = {_own_name(name): tensor for name, tensor in own.items() if name not in self.trained}
        # Weights that are adapted, and their scales; whatever else is frozen is looked at after the merge.
        adapted = {name for name in frozen if {name, name.rpartition(".")[0]} & self.targets.keys()}
        digests = fast_digests({name: frozen[name] for name in sorted(adapted & before.keys())})
        wrong = sorted(name for name, digest in digests.items() if digest != before[name])
        if wrong:
            raise StageError.of(self.step, f"{len(wrong)} tensors changed under their adapters: {', '.join(wrong[:3])}")

    def _save(self, folder: Path, own: Mapping[str, Tensor]) -> int:
        """Write the adapter, before its merge, as PEFT does; returns bytes. It fits the checkpoint that the stage started from."""
        config = self.config.to_dict()
        if isinstance(self.step.parent, Pretrained):
            config["base_model_name_or_path"] = getattr(self.step.model, "hub", None)
        config |= {"target_modules": sorted(config["target_modules"]), "inference_mode": True}
        tensors = {saved_name(name): own[name].detach().float().cpu().contiguous() for name in self.added}
        return write_adapter(folder, tensors, config)

    def _merge_lora(self, own: Mapping[str, Tensor]) -> None:
        """Add the adapters to their weights (beside quantised ones) as whoever loads the checkpoint does, and unload them."""
        scale = scale_of(self.config.to_dict())
        with torch.no_grad():
            for target in self.targets:
                module = module_of(target)
                layer: Any = self.model.get_submodule(module)
                of_a, of_b, of_norms = trained_names(module)
                a, b, norms = own[of_a].detach(), own[of_b].detach(), own.get(of_norms)
                base = layer.get_base_layer()
                if target in self.quantized:
                    add_beside(base, a, b, scale)
                    result = torch.stack([a.sum(), b.sum()])
                else:
                    result = base.weight.data = LayerAdapter(a, b, scale, norms).merge(base.weight.data)
                if not bool(result.isfinite().all()):
                    raise StageError.of(self.step, f"{target}: merging its adapter makes it infinite or NaN")
        self.tuner.unload()

    def _merge_osf(self) -> dict[str, Any]:
        """Add what OSF has trained to the weights, rounding once, and take it out of the model; returns what leaked."""
        assert self.subspaces is not None
        try:
            leaks = self.subspaces.merge()
        except ValueError as error:
            raise StageError.of(self.step, str(error)) from error
        self.tuner.unload()
        return leaks.fields()


def stage_seed(step: Finetune) -> int:
    """What a fresh adapter starts from depends on the seed and the number of the stage alone."""
    return int(np.random.SeedSequence([step.seed, step.depth]).generate_state(1)[0])


@contextmanager
def _in_fp32(layers: Iterable[Any], *, unchanged: bool) -> Iterator[None]:
    """Inside the `with`, the weights of some layers are fp32; afterwards they have the dtypes that they had. What the `with`
    leaves `unchanged` is the same memory again."""
    layers = list(layers)
    weights = [layer.weight.data for layer in layers]
    for layer in layers:
        layer.weight.data = layer.weight.data.float()
    try:
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.data = weight if unchanged else layer.weight.data.to(weight.dtype)


def _without(gradient: Tensor, *, frozen: Slice) -> Tensor:
    """`gradient` with zeros in the slice that does not train."""
    return gradient.index_fill(frozen.dim, frozen.index(gradient), 0)


def _peft_config(adapter: Adapter, modules: list[str]) -> Any:
    """Our settings in PEFT's words; `modules` are whole names, so that no other module ends like one."""
    from peft import LoraConfig, OSFConfig

    match adapter:
        case LoRA():
            return LoraConfig(
                r=adapter.rank,
                lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # PEFT divides by it whatever the type
                lora_dropout=adapter.dropout,
                use_dora=adapter.dora,
                use_rslora=adapter.rslora,
                target_modules=modules,
            )
        case OSF():
            return OSFConfig(effective_rank=adapter.preserved, target_modules=modules)
    raise TypeError(f"{type(adapter).__name__} is not an adapter of PEFT")


def module_of(name: str) -> str:
    """The module that a parameter belongs to."""
    return name.rpartition(".")[0]


def _own_name(name: str) -> str:
    """The name that a tensor has in the model without adapters."""
    return name.replace(".base_layer.", ".")
