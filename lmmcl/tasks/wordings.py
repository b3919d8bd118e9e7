"""A benchmark's questions in other words: the same images, answers and metric, with the instruction reworded.

A model that no longer follows one wording of an instruction may still have the skill. Asked in several wordings, forgetting of a
wording is told apart from forgetting of a skill. The other wordings stand beside the benchmark: no measure counts them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from lmmcl.errors import UserError, shown, unknown
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, Rows
from lmmcl.tasks.metrics.judge import Judge
from lmmcl.tasks.metrics.metric import Metric
from lmmcl.tasks.skills import Benchmark

if TYPE_CHECKING:
    from lmmcl.tasks.files.fingerprints import Fingerprints

QUESTION = "{question}"
FORM = f"a text with {QUESTION}, or {{replace: words of the question, with: other words}}"


@dataclass(frozen=True)
class Wording:
    """A template that holds QUESTION, in whose place the question comes; or words of it that are replaced.

    `with_` is None for a template.
    """

    text: str
    with_: str | None = None

    def identity(self) -> dict[str, Any]:
        """What enters a key."""
        return {"template": self.text} if self.with_ is None else {"replace": self.text, "with": self.with_}

    @property
    def label(self) -> str:
        """For tables."""
        return self.text if self.with_ is None else f"{self.text} → {self.with_}"

    def reword(self, example: Example) -> Example:
        """The example with its last question reworded; images stay before it. Raises UserError where words are not in it."""
        *before, asked, answer = example.messages
        lines = asked.content.split("\n")
        images = next((number for number, line in enumerate(lines) if line.strip() != IMAGE_PLACEHOLDER), len(lines))
        question = "\n".join(lines[images:])
        if self.with_ is None:
            new = self.text.replace(QUESTION, question)
        elif self.text in question:
            new = question.replace(self.text, self.with_)
        else:
            raise UserError(f"{shown(self.text)} is not in question {example.id!r}, which is {shown(question)}")
        message = Message(asked.role, "\n".join([*lines[:images], new]))
        return replace(example, messages=(*before, message, answer))


def read_wording(value: Any) -> Wording:
    """A wording as a sweep file has it; raises UserError for anything else."""
    if isinstance(value, str):
        if QUESTION not in value:
            raise UserError(f"{shown(value)} has no place for the question; a wording is {FORM}")
        if IMAGE_PLACEHOLDER in value:
            raise UserError(f"images stay where they are: leave {IMAGE_PLACEHOLDER} out")
        return Wording(value)
    if not isinstance(value, Mapping):
        raise UserError(f"a wording is {FORM}, not {shown(value)}")
    for key in value:
        if key not in ("replace", "with"):
            raise UserError(f"wording: {unknown('key', str(key), ('replace', 'with'))}")
    words, others = value.get("replace"), value.get("with")
    if not isinstance(words, str) or not words or not isinstance(others, str):
        raise UserError(f"a wording is {FORM}, not {shown(dict(value))}")
    if words == others:
        raise UserError(f"{shown(words)} is replaced with itself")
    return Wording(words, others)


@dataclass(frozen=True)
class Reworded(Rows):
    """Questions in other words, each made when it is asked for."""

    examples: Sequence[Example]
    wording: Wording

    def __len__(self) -> int:
        return len(self.examples)

    def row(self, index: int) -> Example:
        return self.wording.reword(self.examples[index])

    def origin(self, index: int) -> int:
        return self.examples.origin(index) if isinstance(self.examples, Rows) else index

    def values(self, field: str) -> list[Any]:
        if isinstance(self.examples, Rows):
            return self.examples.values(field)
        return [example.metadata.get(field) for example in self.examples]


@dataclass(frozen=True)
class WordedBenchmark(Benchmark):
    """`of` in another wording; all else is as `of` has it."""

    of: Benchmark = field(kw_only=True)
    wording: Wording = field(kw_only=True)

    @property
    def judge(self) -> Judge | None:
        return self.of.judge

    def scoring(self) -> Metric:
        return self.of.scoring()

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        return {**self.of.identity(), "wording": self.wording.identity()}

    def missing(self) -> str | None:
        return self.of.missing()

    def fingerprints(self) -> Fingerprints | None:
        return self.of.fingerprints()

    def known_rows(self) -> int | None:
        return self.of.known_rows()

    def _in_order(self) -> bool:
        return self.of._in_order()

    def _choose(self, examples: Sequence[Example], count: int) -> Sequence[int]:
        return self.of._choose(examples, count)


def worded(benchmark: Benchmark, wording: Wording) -> WordedBenchmark:
    """The benchmark in another wording, called `<benchmark>.w<digest of the wording>`."""
    digest = hashlib.sha256(repr(wording.identity()).encode()).hexdigest()[:6]
    return WordedBenchmark(
        name=f"{benchmark.name}.w{digest}",
        version=benchmark.version,
        metric=benchmark.metric,
        load=partial(_load, benchmark.load, wording),
        max_new_tokens=benchmark.max_new_tokens,
        description=f"{benchmark.name} asked as: {wording.label}",
        balance=benchmark.balance,
        random_order=benchmark.random_order,
        of=benchmark,
        wording=wording,
    )


def _load(load: Callable[[], Sequence[Example]], wording: Wording) -> Reworded:
    return Reworded(load(), wording)
