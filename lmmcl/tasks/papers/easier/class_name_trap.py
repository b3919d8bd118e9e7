"""ImageWikiQA with one wrong option replaced by what the image shows, and with another class as the control.

"Fine-tuning MLLMs Without Forgetting Is Easier Than You Think" (arXiv 2603.14493): a model taught ImageNet-VQA picks the class name
whatever is asked (evaluators/mix_cls_result_matcher.py counts how often). Which option is replaced follows from the
question's id. An option that names the class already is the trap as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from lmmcl.tasks.examples import Example, Rows
from lmmcl.tasks.hub.hub_data import HubBenchmark
from lmmcl.tasks.metrics.parse_answer import stated_letter
from lmmcl.tasks.papers.easier.knowledge import IMAGE_WIKI_QA
from lmmcl.tasks.papers.prompts import deterministic_shuffle
from lmmcl.tasks.skills import Benchmark
from lmmcl.tasks.synthetic.class_name import TRAP, options, with_class_name


@dataclass(frozen=True)
class TrapBenchmark(Benchmark):
    """Another benchmark's questions with an option replaced; prepared when that is."""

    questions: HubBenchmark = field(kw_only=True, compare=False)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        return {**super().identity(), "questions": self.questions.identity()}

    def missing(self) -> str | None:
        return self.questions.missing()


class TrapRows(Rows):
    """Lettered questions whose metadata name the class shown, with a wrong option that is it (`named`) or another class."""

    def __init__(self, questions: Sequence[Example], named: bool) -> None:
        self._questions, self._named = questions, named

    def __len__(self) -> int:
        return len(self._questions)

    def row(self, index: int) -> Example:
        example = self._questions[index]
        own = example.metadata["class_name"]
        shown, right = options(example), stated_letter(example.target)
        name = own if self._named else self._other(own, shown.values(), example.id)
        there = [letter for letter, text in shown.items() if text.casefold() == name.casefold()]
        if there:
            return replace(example, metadata={**example.metadata, TRAP: there[0] if there[0] != right else ""})
        wrong = [letter for letter in shown if letter != right]
        return with_class_name(example, name, letter=deterministic_shuffle(wrong, example.id)[0])

    def _other(self, own: str, shown: Any, id: str) -> str:
        """A class that is neither shown in the image nor among the options."""
        taken = {own.casefold(), *(text.casefold() for text in shown)}
        return next(name for name in deterministic_shuffle(self._classes, id) if name.casefold() not in taken)

    @cached_property
    def _classes(self) -> list[str]:
        rows = self._questions
        named = (
            rows.values("class_name")
            if isinstance(rows, Rows)
            else [example.metadata["class_name"] for example in rows]
        )
        return sorted(set(named))


def _load(questions: Callable[[], Sequence[Example]], named: bool) -> TrapRows:
    return TrapRows(questions(), named)


def trap(name: str, named: bool, description: str) -> TrapBenchmark:
    """ImageWikiQA with the class shown, or with another, as an option."""
    load = partial(_load, IMAGE_WIKI_QA.load, named)
    return TrapBenchmark(name, 1, "letter", load, max_new_tokens=16, description=description, questions=IMAGE_WIKI_QA)


WIKI_CLASS = trap("image_wiki_class", True, "ImageWikiQA; one wrong option is what the image shows")
WIKI_CLASS_CONTROL = trap("image_wiki_class_control", False, "the same questions; one wrong option is another class")
