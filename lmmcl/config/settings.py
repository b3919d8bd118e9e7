"""Settings that decide what is computed and therefore enter keys: training and evaluation.

Names are those of Hugging Face's TrainingArguments where one says the same (`epochs` is its `num_train_epochs`). Where and
how a step runs (GPUs, micro batch, strategy) is never here but in `lmmcl.config.cluster`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lmmcl.errors import ITEM_TYPE, TRUTH, shown, unknown_key

Precision = Literal["fp32", "bf16", "fp16"]
ADAMW: Literal["adamw"] = "adamw"
"""The optimizer where none is set."""
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
"""Of a number, by precision."""

WEIGHT_DECAY = 2
"""Version of what weight decay is for; in the keys of stages that have one."""


LARGEST = 2**63 - 1
"""Of whole numbers: what is computed with them, such as bytes, must still be a number."""


class Settings(BaseModel):
    """Frozen settings that answer an unknown key with the near ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(unknown_key("key", key, cls.model_fields))
        return data

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_too_large(cls, entered: Any) -> Any:
        for place, value in _items(entered):
            if isinstance(value, int) and abs(value) > LARGEST:
                raise _item_error(f"is too large; allowed: whole numbers up to {LARGEST:,}", place)
        return entered

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth(cls, entered: Any, info: ValidationInfo) -> Any:
        """Pydantic would read `true` as the number 1; where no number is allowed, it refuses by itself."""
        truths = [(place, value) for place, value in _items(entered) if isinstance(value, bool)]
        if truths and bool not in (kinds := set(_kinds(cls.model_fields[str(info.field_name)].annotation))):
            place, truth = truths[0]
            value = f"{str(truth).lower()} {TRUTH}"
            numbers = sorted(kind for kind in kinds if isinstance(kind, int))
            if float in kinds or int in kinds:
                raise _item_error(f"a {'' if float in kinds else 'whole '}number is expected, not {value}", place)
            if numbers:
                raise _item_error(f"one of {', '.join(map(str, numbers))} is expected, not {value}", place)
            if Any in kinds:
                raise _item_error(f"not an allowed value: {value}", place)
        return entered


def _items(entered: Any) -> list[tuple[int | None, Any]]:
    """What was entered, or what the list holds that was entered, each with its index."""
    return list(enumerate(entered)) if isinstance(entered, list) else [(None, entered)]


def _item_error(message: str, place: int | None) -> PydanticCustomError:
    """An error about an item of a list where `place` is its index; it becomes a part of the error's place."""
    return PydanticCustomError(ITEM_TYPE, "{why}", {"why": message, "index": place})


def _kinds(annotation: Any) -> Iterator[Any]:
    """The types (and the literal values) that a field or the items of its lists may have; of a mapping only that it is one."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from _kinds(inner[0])
    elif not inner or (isinstance(origin, type) and issubclass(origin, Mapping)):
        yield origin or annotation
    else:
        for part in inner:
            yield from _kinds(part)


def mapping_of(what: str, example: str, remedy: str = "") -> BeforeValidator:
    """Refuses all but mappings, with what is mapped to what, an example, and where else the value may belong."""

    def check(value: Any) -> Any:
        if not isinstance(value, Mapping):
            raise ValueError(f"expected a mapping of {what}, such as {example}, not {shown(value)}{remedy}")
        return value

    return BeforeValidator(check)


class Training(Settings):
    """One stage's fine-tuning. Defaults are those of LMM-CL (arXiv 2510.08564): optimizer and schedule restart each stage."""

    learning_rate: float = Field(default=5e-6, gt=0, description="peak learning rate of AdamW")
    epochs: float = Field(default=1, gt=0, description="passes over a skill's training examples")
    max_steps: int | None = Field(default=None, gt=0, description="optimizer updates; overrides epochs")
    examples: int | None = Field(
        default=None,
        gt=0,
        description="train on N examples of each skill: a fixed sample, the same for all trials",
    )
    max_length: int | None = Field(
        default=None,
        gt=0,
        description="tokens of an example, images included: longer dialogues lose their last turns, then the end of the "
        "answer, never a part of an image; default no limit",
    )
    global_batch_size: int = Field(default=16, gt=0, description="examples per update, over all workers")
    warmup_ratio: float = Field(default=0.03, ge=0, lt=1, description="share of the updates with rising learning rate")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "constant_with_warmup"] = Field(
        default="cosine", description="course of the learning rate over a stage"
    )
    weight_decay: float = Field(
        default=0.0, ge=0, description="of AdamW; not applied to norms, biases, scales and single vectors"
    )
    max_grad_norm: float = Field(
        default=1.0, ge=0, description="gradients are clipped to this norm; 0 disables clipping"
    )
    adam_beta1: float = Field(default=0.9, ge=0, lt=1, description="β₁ of AdamW")
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="β₂ of AdamW")
    adam_epsilon: float = Field(default=1e-8, gt=0, description="ε of AdamW")
    precision: Precision = Field(default="bf16", description="of weights and arithmetic")
    optimizer: Literal["adamw", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = Field(
        default=ADAMW,
        description="AdamW of torch, or of bitsandbytes: with states of 8 bits, paged to host memory (GPUs), or both",
    )

    def identity(self) -> dict[str, Any]:
        """What enters a key. A setting that came later is in it only where it is set."""
        later = {"max_length": None, "optimizer": ADAMW}
        unset = {name for name, default in later.items() if getattr(self, name) == default}
        identity = self.model_dump(mode="json", exclude=unset)
        return {**identity, "weight_decay_version": WEIGHT_DECAY} if self.weight_decay else identity

    def updates(self, examples: int) -> int:
        """Optimizer updates of a stage on a skill with `examples` training examples, at most `self.examples` of them taken."""
        examples = min(examples, self.examples or examples)
        return self.max_steps or math.ceil(self.epochs * examples / self.global_batch_size)


class Evaluation(Settings):
    """How every benchmark is asked; decoding is greedy."""

    limit: int | None = Field(
        default=None,
        gt=0,
        description="evaluate N questions of each benchmark: a fixed sample, the same for all trials, spread evenly over the field "
        "that a benchmark balances its score over",
    )
    precision: Precision = Field(default="bf16", description="of weights and arithmetic")
    updates: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(), description="also inside every stage: after these of its updates, such as [10, 100, 1000]"
    )
    every: int | None = Field(default=None, gt=0, description="also inside every stage: after every N of its updates")

    @field_validator("updates")
    @classmethod
    def _ascending(cls, updates: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(updates)))

    @model_validator(mode="after")
    def _one_of_both(self) -> Evaluation:
        if self.updates and self.every:
            raise ValueError("updates and every both say when to evaluate inside a stage: give one of them")
        return self

    @property
    def looks_inside(self) -> bool:
        """Whether benchmarks are asked inside stages too."""
        return bool(self.updates or self.every)

    def moments(self, last: int | None) -> set[int]:
        """The updates of a stage of `last` updates (None: unknown so far) after which benchmarks are evaluated."""
        if self.every:
            return set(range(self.every, (last or 0) + 1, self.every))
        return {update for update in self.updates if last is None or update <= last}

    def identity(self) -> dict[str, Any]:
        """What enters a key: how checkpoints are evaluated, not which."""
        return self.model_dump(mode="json", exclude={"updates", "every"})
