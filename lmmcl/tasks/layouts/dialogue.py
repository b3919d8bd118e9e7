"""The turns of one row's dialogue, read into Messages; everything that is wrong in them is reported to the caller."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lmmcl.errors import unknown
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Message, Role
from lmmcl.tasks.layouts.placeholders import meant_placeholder, refusal_of
from lmmcl.tasks.readers.row_values import kind

Complain = Callable[[str, str], Any]
"""Told (field, message) for each thing that is wrong in a row; what it returns is None."""

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
SHAREGPT: dict[Role, str] = {"user": "human", "assistant": "gpt"}
"""What ShareGPT and LLaVA call the roles."""
TURN_FIELDS = {"conversations": ("from", "value"), "messages": ("role", "content")}
TOOL_ROLES = ("tool", "function", "function_call", "observation", "tool_call", "tool_response", "tool_calls", "ipython")
"""Speakers that ShareGPT, OpenAI and ms-swift give to tools and to calls of them."""
TOOLS = "calls of tools are not supported: leave such rows out"


class Turns:
    """Reads one row's dialogue; remembers the images that parts of type 'image' name or number."""

    def __init__(self, column: str, complain: Complain) -> None:
        self.column = column
        self.speaker, self.text = TURN_FIELDS[column]
        self.complain = complain
        self.inline: list[tuple[str, Any]] = []
        self.order: list[tuple[str, int]] = []
        self.accepted: tuple[str, ...] = ()
        self.names: dict[Role, str] = {}

    def read(self, turns: Any) -> list[Message]:
        """The messages of a row's turns; what is wrong in them goes to `complain`."""
        if not isinstance(turns, list) or not turns:
            self.complain(
                self.column, f"is {'empty' if turns == [] else kind(turns)} where a list of turns is expected"
            )
            return []
        self._choose_keys(turns[0])
        turns = self._with_first_answer(turns)
        messages = [message for index, turn in enumerate(turns) if (message := self.turn(index, turn)) is not None]
        if len(messages) < len(turns):
            return []
        return messages if self.in_order(messages) else []

    def _choose_keys(self, first: Any) -> None:
        """Some write `messages` with the keys of `conversations`, and the other way round: the first turn tells."""
        if isinstance(first, dict) and self.speaker not in first:
            other = next(keys for name, keys in TURN_FIELDS.items() if name != self.column)
            if other[0] in first and other[1] in first:
                self.speaker, self.text = other

    def _with_first_answer(self, turns: list[Any]) -> list[Any]:
        """A last turn that lists several accepted answers, as the first of them: that is taught."""
        last = turns[-1]
        if not isinstance(last, dict) or not isinstance(answers := last.get(self.text), list) or not answers:
            return turns
        if ROLES.get(str(last.get(self.speaker))) != "assistant" or not all(
            isinstance(answer, str) for answer in answers
        ):
            return turns
        self.accepted = tuple(answers)
        return [*turns[:-1], {**last, self.text: answers[0]}]

    def turn(self, index: int, turn: Any) -> Message | None:
        """One turn as a message; None, and a complaint, for one that is not of the form expected."""
        place = f"{self.column}[{index}]"
        if not isinstance(turn, dict):
            return self.complain(
                place, f"is {kind(turn)} where an object with {self.speaker!r}, {self.text!r} is expected"
            )
        name = turn.get(self.speaker)
        role = ROLES.get(name) if isinstance(name, str) else None
        if not isinstance(name, str):
            self.complain(f"{place}.{self.speaker}", f"is {kind(name)} where one of {', '.join(ROLES)} is expected")
        elif name in TOOL_ROLES:
            return self.complain(f"{place}.{self.speaker}", f"is {name!r}: {TOOLS}")
        elif role is None:
            self.complain(f"{place}.{self.speaker}", unknown("role", name[:40], ROLES))
        if role == "assistant" and turn.get("tool_calls"):
            return self.complain(f"{place}.tool_calls", TOOLS)
        if role is not None:
            self.names.setdefault(role, str(name))
        content = self.content(f"{place}.{self.text}", turn.get(self.text))
        if role is None or content is None:
            return None
        if not content.strip():
            return self.complain(f"{place}.{self.text}", "is empty")
        if role != "user" and IMAGE_PLACEHOLDER in content:
            return self.complain(
                f"{place}.{self.text}", f"holds {IMAGE_PLACEHOLDER}; only a user's turn shows an image"
            )
        if role == "user" and (placeholder := meant_placeholder(content)):
            return self.complain(f"{place}.{self.text}", refusal_of(placeholder))
        return Message(role, content)

    def content(self, place: str, value: Any) -> str | None:
        """The text of a turn, its image parts turned into placeholders; None after a complaint."""
        if isinstance(value, list) and self.text == "content":
            parts = [self.part(f"{place}[{index}]", part) for index, part in enumerate(value)]
            return None if None in parts else _join([part for part in parts if part])
        if isinstance(value, str):
            return value if is_unicode(value, place, self.complain) else None
        allowed = "a text or a list of parts" if self.text == "content" else "a text"
        return self.complain(place, f"is {kind(value)} where {allowed} is expected")

    def part(self, place: str, part: Any) -> str | None:
        """The text of one part of a turn, a placeholder for an image; None, and a complaint, for anything else."""
        if not isinstance(part, dict):
            return self.complain(place, f"is {kind(part)} where an object with 'type' is expected")
        sort = part.get("type")
        if sort == "text" and isinstance(part.get("text"), str):
            return part["text"] if is_unicode(part["text"], f"{place}.text", self.complain) else None
        if sort == "text":
            return self.complain(f"{place}.text", f"is {kind(part.get('text'))} where a text is expected")
        if sort == "image_url":
            return self._image_url(place, part.get("image_url"))
        if sort != "image":
            message = (
                unknown("part", sort[:40], ("image", "image_url", "text"))
                if isinstance(sort, str)
                else f"is {kind(sort)}"
            )
            return self.complain(f"{place}.type", message)
        for key in ("image", "path"):
            if part.get(key) is not None:
                self.inline.append((f"{place}.{key}", part[key]))
                break
        else:
            if isinstance(part.get("index"), int) and not isinstance(part["index"], bool):
                self.order.append((f"{place}.index", part["index"]))
        return IMAGE_PLACEHOLDER

    def _image_url(self, place: str, value: Any) -> str | None:
        """OpenAI's form: a data URL, or the path of a file."""
        url = value.get("url") if isinstance(value, dict) else value
        if not isinstance(url, str):
            return self.complain(f"{place}.image_url", "is an object without the text 'url'")
        self.inline.append((f"{place}.image_url.url" if isinstance(value, dict) else f"{place}.image_url", url))
        return IMAGE_PLACEHOLDER

    def in_order(self, messages: list[Message]) -> bool:
        """Whether user and assistant take turns, the user first (after a system turn, if any) and the assistant last."""
        start = 1 if messages[0].role == "system" else 0
        for index, message in enumerate(messages[start:], start=start):
            expected: Role = "assistant" if (index - start) % 2 else "user"
            if message.role != expected:
                place = f"{self.column}[{index}].{self.speaker}"
                self.complain(place, f"is {self.name_of(message.role)!r} where {self.name_of(expected)!r} is expected")
                return False
        if messages[-1].role != "assistant":
            name = self.name_of("assistant")
            self.complain(
                self.column, f"must end with a turn of {name!r}, which holds the answer to learn or the reference"
            )
            return False
        return True

    def name_of(self, role: Role) -> str:
        """What the row calls a role, or would call it by the names of the other turns."""
        as_sharegpt = self.speaker == "from" and self.names.get("user", "human") == "human"
        return self.names.get(role, SHAREGPT.get(role, role) if as_sharegpt else role)


def _join(parts: list[str]) -> str:
    """Parts as one text, an image on a line of its own as LLaVA writes it; texts are joined as they are."""
    joined = ""
    for part in parts:
        image = part == IMAGE_PLACEHOLDER or joined.endswith(IMAGE_PLACEHOLDER)
        joined += f"\n{part}" if joined and image and not joined.endswith("\n") and not part.startswith("\n") else part
    return joined


def place_images(messages: list[Message], images: int, column: str, complain: Complain) -> list[Message]:
    """The dialogue with as many placeholders as images; empty after a complaint."""
    placeholders = sum(message.content.count(IMAGE_PLACEHOLDER) for message in messages)
    if placeholders == images:
        return messages
    if placeholders:
        complain(column, f"placeholders and images disagree: {placeholders} {IMAGE_PLACEHOLDER}, {images} in the row")
        return []
    first = next(index for index, message in enumerate(messages) if message.role == "user")
    shown = Message("user", f"{IMAGE_PLACEHOLDER}\n" * images + messages[first].content)
    return [*messages[:first], shown, *messages[first + 1 :]]


def is_unicode(text: str, place: str, complain: Complain) -> bool:
    """Whether a text can be written and tokenized: JSON may spell half of a surrogate pair, which is not a character."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        complain(place, "holds a lone surrogate (half of a character)")
        return False
    return True
