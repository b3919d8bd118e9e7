"""Probes: what is measured inside a checkpoint, beside its scores. Here is what each one is; `evaluation/probes` computes it.

A probe is a frozen set of checked settings with a `version` that is raised whenever the same settings would compute
something else. It looks at a fixed sample of the sweep's held-out benchmarks, which nothing taught.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lmmcl.errors import UserError, unknown
from lmmcl.named_settings import build, name_and_settings
from lmmcl.registry import member, members
from lmmcl.tasks.papers.easier.class_name_trap import WIKI_CLASS, WIKI_CLASS_CONTROL
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.class_name import BIRD_PARTS, BIRD_PARTS_CONTROL

TokenClass = Literal["number", "letter", "yes_no", "time"]


class Probe(BaseModel):
    """Settings of one probe. `computed_by` names the module of `lmmcl.evaluation.probes` that computes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: ClassVar[str]
    version: ClassVar[int]
    computed_by: ClassVar[str]
    needs_base: ClassVar[bool] = False
    """Whether the checkpoint is compared with the pre-trained model; such a probe skips that model itself."""

    examples: int = Field(default=64, gt=0, description="questions of each benchmark, a fixed sample")
    updates: tuple[Annotated[int, Field(gt=0)], ...] = Field(
        default=(), description="also inside every stage: after these of its updates, such as [1, 10, 100]"
    )

    questions: tuple[str, ...] = Field(
        default=(),
        description="names of benchmarks, or of skills taught, whose questions are used; default all held-out ones",
    )

    @field_validator("updates")
    @classmethod
    def _ascending(cls, updates: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(updates)))

    def benchmarks(
        self, held_out: Sequence[Benchmark], *, drawn: bool = True, taught: Sequence[Benchmark] = ()
    ) -> tuple[Benchmark, ...]:
        """The benchmarks whose questions are used; raises UserError when there is none, or one is not known.

        `drawn`: the model was taught with drawn pictures, as the embedded ones are. `taught` are benchmarks of skills, whose
        questions are used where `questions` names them.
        """
        if self.questions:
            return tuple(self._named(name, [*held_out, *taught]) for name in self.questions)
        if not held_out:
            raise UserError(f"{self.name} looks at held-out benchmarks, and the sweep lists none")
        return tuple(held_out)

    def _named(self, name: str, at_hand: Sequence[Benchmark]) -> Benchmark:
        from lmmcl.tasks import benchmark_names, get_benchmark  # which looks through all of this package

        own = {benchmark.name: benchmark for benchmark in at_hand}
        if name not in own and name not in benchmark_names():
            raise UserError(f"questions: {unknown('benchmark', name, [*own, *benchmark_names()])}")
        return own[name] if name in own else get_benchmark(name)

    def identity(self, benchmarks: Sequence[Benchmark] = ()) -> dict[str, Any]:
        """What enters a key: what is looked at (on questions of `benchmarks`, which are apart in a step's fields), not the
        checkpoints."""
        fields = self.model_dump(mode="json", exclude={"updates", "questions"})
        return {"name": self.name, "version": self.version, **fields}


def captions(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """Those that ask for captions: such a benchmark is about no class of tokens, only single captions are."""
    return [benchmark for benchmark in benchmarks if benchmark.metric == "cider"]


class LeavesOut(Probe):
    """A probe that leaves out what is about its class of tokens: benchmarks, and of captions single examples."""

    def identity(self, benchmarks: Sequence[Benchmark] = ()) -> dict[str, Any]:
        """Captions were left out as a whole once."""
        return super().identity(benchmarks) | ({"captions": "by example"} if captions(benchmarks) else {})


_SHARE: Any = Field(
    default=0.05,
    ge=0,
    lt=1,
    description="a benchmark is about the class, and left out, when more of its reference answers hold such a token; of captions "
    "only those that do are left out",
)


class TokenBias(LeavesOut):
    """How much probability goes to a class of tokens on questions that are not about that class."""

    computed_by: ClassVar[str] = "token_bias"
    tokens: ClassVar[TokenClass]

    share: float = _SHARE
    max_new_tokens: int | None = Field(default=None, gt=0, description="default: each benchmark's own")


class NumberBias(TokenBias):
    """Number-token bias (LMM-CL, arXiv 2510.08564): probability of digits and number words where no number is asked for."""

    name = "number_bias"
    version = 1
    tokens = "number"


class LetterBias(TokenBias):
    """Probability of lone capital letters, the answers of lettered options, where no letter is asked for."""

    name = "letter_bias"
    version = 1
    tokens = "letter"


class YesNoBias(TokenBias):
    """Probability of yes and no where neither is asked for."""

    name = "yes_no_bias"
    version = 1
    tokens = "yes_no"


class TimeBias(TokenBias):
    """Probability of the colon of a time and of clock words where no time is asked for."""

    name = "time_bias"
    version = 1
    tokens = "time"


class KLFromBase(Probe):
    """KL(base ‖ tuned) of the distributions that predict the tokens of the reference answers, in nats."""

    name = "kl_from_base"
    version = 1
    computed_by: ClassVar[str] = "kl_from_base"
    needs_base = True


class LayerContribution(Probe):
    """How far each layer's attention and MLP outputs, as the LM head reads them, have moved from the base (LMM-CL)."""

    name = "layer_contribution"
    version = 1
    computed_by: ClassVar[str] = "layer_contribution"
    needs_base = True


class Constrained(LeavesOut):
    """Points that come back when a class of tokens is forbidden, or when only words of the reference answers are allowed."""

    name = "constrained"
    version = 1
    computed_by: ClassVar[str] = "constrained"

    forbid: TokenClass = Field(default="number", description="the class of tokens that is forbidden")
    share: float = _SHARE


class ClassNameOption(Probe):
    """Task-specific overfitting (arXiv 2603.14493): how often a wrong option is picked because it names what is shown.

    Asks ImageWikiQA with one wrong option replaced by the class of the image, and, as the control, by another class; of models
    that know drawn pictures alone lettered questions on the colours of birds, with the kind that the skill `birds` teaches.
    """

    name = "class_name_option"
    version = 1
    computed_by: ClassVar[str] = "class_name_option"

    examples: int = Field(default=200, gt=0, description="questions")

    def benchmarks(
        self, held_out: Sequence[Benchmark], *, drawn: bool = True, taught: Sequence[Benchmark] = ()
    ) -> tuple[Benchmark, ...]:
        """Its own questions and their control; no held-out benchmark is used."""
        if self.questions:
            raise UserError(f"{self.name} has questions of its own; leave out `questions`")
        return (BIRD_PARTS, BIRD_PARTS_CONTROL) if drawn else (WIKI_CLASS, WIKI_CLASS_CONTROL)


PROBES: tuple[type[Probe], ...] = (
    NumberBias,
    LetterBias,
    YesNoBias,
    TimeBias,
    KLFromBase,
    LayerContribution,
    Constrained,
    ClassNameOption,
)


def probe_names() -> list[str]:
    """Names of all probes that ship."""
    return list(members("lmmcl.tasks", "PROBES"))


def get_probe(spec: str | Mapping[str, Any]) -> Probe:
    """A probe from `name` or `{name: {setting: value}}`; raises UserError for unknown names and bad settings."""
    name, settings = name_and_settings("probe", spec)
    kind: type[Probe] = member("lmmcl.tasks", "PROBES", "probe", name)
    return build(kind, name, settings)
