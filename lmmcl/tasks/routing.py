"""Questions about questions: which of several experts, one for each skill, is to answer a question about an image.

Used where a model chooses among experts (MR-LoRA of MLLM-CL, arXiv 2506.05453): the pool of experts is described in the prompt, one
letter each, and the answer is a letter. PROMPT_VERSION is raised whenever the prompt changes (the router is trained again), and
READING_VERSION whenever its answers are read otherwise (the questions are asked again).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any

from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Example, Message, Rows
from lmmcl.tasks.skills import Benchmark, Skill

NAME = "router"
PROMPT_VERSION = 1
READING_VERSION = 2
MOST_EXPERTS = len(ascii_uppercase)
ANSWER_TOKENS = 16
"""As in the authors' evaluation; a router that has learnt its task stops after a letter."""
_FIRST = re.compile(r"\W*([A-Za-z])(?=[^\S\n]*(?:[^\w\s'’]|\n|$))")
"""A letter alone, on a line or before a punctuation mark: `B`, `(b) because`, not the article of `A bird`."""
_LAST = re.compile(r"(?:^|[^\w'’])([A-Z])[^\w\n]*$", re.MULTILINE)
"""A capital letter at the end of a line: `Answer: B`, `the expert is (B).`"""


def answer_identity() -> dict[str, int]:
    """What enters the key of a checkpoint whose questions are routed: how the router's answers are asked for and read."""
    return {"reading": READING_VERSION, "max_new_tokens": ANSWER_TOKENS}


def pool_of(skills: Sequence[Skill], descriptions: Mapping[str, str]) -> tuple[str, ...]:
    """How a router's prompt describes each expert: the skill's name, then `descriptions` or else the skill's own description."""
    described = [(skill.name, descriptions.get(skill.name, skill.description)) for skill in skills]
    return tuple(f"{name}: {text}" if text else name for name, text in described)


def routing_example(example: Example, pool: Sequence[str], answer: str = "") -> Example:
    """The question of `example` as one about the experts of `pool`; `answer` is the letter that is taught."""
    dialogue = "\n".join(message.content for message in example.prompt if message.role != "system")
    question = dialogue.replace(IMAGE_PLACEHOLDER, "").strip()
    experts = "\n".join(f"{letter}. {text}" for letter, text in zip(ascii_uppercase, pool, strict=False))
    content = (
        f"{IMAGE_PLACEHOLDER * dialogue.count(IMAGE_PLACEHOLDER)}\nExperts:\n{experts}\nQuestion: {question}\n"
        "Which expert should answer it? Say only the letter."
    )
    return Example(example.id, (Message("user", content.strip()), Message("assistant", answer)), example.images)


def choice(text: str, experts: int, question: str) -> tuple[int, bool]:
    """Which expert a router's answer names, and whether it names one; else an expert that `question` (an id) alone decides.

    The answer begins with a letter of the pool that stands alone, or has one at the end of a line; of these the last counts.
    """
    first = _FIRST.match(text)
    for letter in [*([first[1]] if first else []), *reversed(_LAST.findall(text))]:
        if (number := ascii_uppercase.index(letter.upper())) < experts:
            return number, True
    return int.from_bytes(hashlib.sha256(question.encode()).digest()[:7]) % experts, False


@dataclass(frozen=True)
class RouterSkill(Skill):
    """What a router is taught: `examples` examples of every one of `skills`, answered by the letter of its expert in the `pool`."""

    skills: tuple[Skill, ...] = field(kw_only=True)
    pool: tuple[str, ...] = field(kw_only=True)
    examples: int = field(kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What of this enters a step's key."""
        sampled = [{**skill.identity(), **skill.sampling(self.examples)} for skill in self.skills]
        return {**super().identity(), "skills": sampled, "examples": self.examples, "pool": list(self.pool)}

    def missing(self) -> str | None:
        return next((why for skill in self.skills if (why := skill.missing())), None)

    def notes(self) -> tuple[str, ...]:
        return tuple(note for skill in self.skills for note in skill.notes())

    def known_rows(self) -> int | None:
        rows = [skill.known_rows() for skill in self.skills]
        return None if None in rows else sum(min(row or 0, self.examples) for row in rows)


@dataclass(frozen=True)
class _Rows(Rows):
    """The questions of a sequence as those about a pool of experts, each made when it is asked for."""

    examples: Sequence[Example]
    pool: tuple[str, ...]
    letter: str = ""

    def __len__(self) -> int:
        return len(self.examples)

    def row(self, index: int) -> Example:
        return routing_example(self.examples[index], self.pool, self.letter)


@dataclass(frozen=True)
class _Load:
    """Makes the examples of a router's skill (a class, so that the skill travels to workers)."""

    skills: tuple[Skill, ...]
    pool: tuple[str, ...]
    examples: int

    def __call__(self) -> list[Example]:
        parts = zip(ascii_uppercase, self.skills, strict=False)
        return [row for letter, skill in parts for row in _Rows(skill.take(self.examples), self.pool, letter)]


def router_skill(skills: Sequence[Skill], pool: tuple[str, ...], examples: int) -> RouterSkill:
    """The skill of choosing among the experts of `skills`, in their order (at most MOST_EXPERTS), which `pool` describes."""
    names = " or ".join(skill.name for skill in skills)
    return RouterSkill(
        name=NAME,
        version=PROMPT_VERSION,
        load=_Load(tuple(skills), pool, examples),
        benchmark=skills[0].benchmark,
        description=f"which expert answers: {names}",
        skills=tuple(skills),
        pool=pool,
        examples=examples,
    )


@dataclass(frozen=True)
class RoutingQuestions(Benchmark):
    """The questions of another benchmark as questions about the experts of a `pool`; they have no answers."""

    asked: Benchmark = field(kw_only=True)
    pool: tuple[str, ...] = field(kw_only=True)

    def identity(self) -> dict[str, Any]:
        """What tells its questions from others, for what is remembered of them."""
        return {**self.asked.identity(), "routed": {"pool": list(self.pool), "prompt": PROMPT_VERSION}}

    def missing(self) -> str | None:
        return self.asked.missing()

    def take(self, count: int | None) -> Sequence[Example]:
        """Of those that the benchmark would take."""
        return _Rows(self.asked.take(count), self.pool)


def routing_questions(benchmark: Benchmark, pool: Sequence[str]) -> RoutingQuestions:
    """The questions of `benchmark` as questions about the experts of `pool`."""
    return RoutingQuestions(
        name=benchmark.name,
        version=benchmark.version,
        metric=benchmark.metric,
        load=benchmark.load,
        max_new_tokens=ANSWER_TOKENS,
        asked=benchmark,
        pool=tuple(pool),
    )
