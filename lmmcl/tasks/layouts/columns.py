"""Which column of the data is which: `columns: {image: photo, question: q, answer: a}`, and a question for rows without one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmmcl.errors import UserError, shown, unknown

OURS = (
    "image",
    "images",
    "question",
    "input",
    "answer",
    "answers",
    "caption",
    "label",
    "system",
    "messages",
    "conversations",
    "id",
)
"""What a column may be: the keys of `columns`."""
FORMS = ("messages", "conversations", "question", "caption", "label", "answer", "answers")
"""Those that settle how a row is read, in the order in which they do."""


ANSWERS_VERSION = 2
"""Of how a column that is named as `answers` is read; since 2 a text may be a JSON list, as in one that calls itself so."""


@dataclass(frozen=True)
class Columns:
    """`names` are (ours, theirs); an image may be in several columns. `question` is for rows that hold none."""

    names: tuple[tuple[str, tuple[str, ...]], ...] = ()
    question: str | None = None

    def __bool__(self) -> bool:
        return bool(self.names)

    def identity(self) -> dict[str, Any]:
        """What enters a key; empty where rows are read as they name themselves."""
        named: dict[str, Any] = {"columns": {ours: list(theirs) for ours, theirs in self.names}} if self.names else {}
        if any(ours == "answers" for ours, _ in self.names):
            named["answers_version"] = ANSWERS_VERSION
        return {**named, **({"question": self.question} if self.question is not None else {})}

    def form(self) -> str | None:
        """The layout that the mapping settles; None where the rows settle it."""
        ours = {name for name, _ in self.names}
        form = next((form for form in FORMS if form in ours), None)
        return "question" if form in ("answer", "answers") else form

    def theirs(self) -> set[str]:
        """The columns that the mapping names."""
        return {column for _, columns in self.names for column in columns}


AS_NAMED = Columns()
"""Rows say themselves what they are."""


def columns_of(mapping: Mapping[str, str | Sequence[str]] | None, question: str | None = None) -> Columns:
    """The columns that a mapping of ours to theirs names; raises UserError for a name of ours that there is not."""
    names: list[tuple[str, tuple[str, ...]]] = []
    used: dict[str, str] = {}
    for ours, value in (mapping or {}).items():
        if ours not in OURS:
            raise UserError(unknown("column", str(ours), OURS), place="columns")
        theirs = (value,) if isinstance(value, str) else tuple(value)
        if len(theirs) > 1 and ours not in ("image", "images"):
            raise UserError(f"{ours} is one column; only an image may be in several", place="columns")
        for column in theirs:
            if column in used:
                raise UserError(f"{shown(column)} is both {used[column]} and {ours}", place="columns")
            used[column] = ours
        names.append((ours, theirs))
    both = [pair for pair in (("image", "images"), ("messages", "conversations")) if set(pair) <= dict(names).keys()]
    if both:
        raise UserError(f"{both[0][0]} and {both[0][1]} are the same; name one", place="columns")
    if question is not None and not question.strip():
        raise UserError("is empty", place="question")
    if question is not None and any(ours == "question" for ours, _ in names):
        raise UserError("a question is given, and a column of questions too; leave one out", place="question")
    return Columns(tuple(sorted(names)), question)


def columns_from_text(text: str | None, question: str | None = None) -> Columns:
    """Those of `image=photo,question=q,answer=a`, as a command line has it."""
    mapping: dict[str, list[str]] = {}
    for part in filter(None, (text or "").split(",")):
        ours, equals, theirs = (side.strip() for side in part.partition("="))
        if not equals or not theirs:
            raise UserError(
                f"is ours=theirs, such as image=photo,question=q,answer=a, not {shown(part)}", place="--columns"
            )
        mapping.setdefault(ours, []).append(theirs)
    return columns_of(mapping, question)
