"""A dialogue as its chat template writes it, and where in that text the answers begin and end.

An answer begins where the template's own generation prompt ends, so what a model reads before it is the same in training and
in generation, and what is taught is what the template writes from there: a space after `Assistant:` is part of the answer's
first word. It ends with the token that ends the turn. A template that writes none (Vicuna's) has its answers ended by the end of
the text.

A template that opens a thought in its generation prompt is asked not to (`enable_thinking`), and where it does so anyway the
thought is closed: an answer is never taught inside a thought. With thinking on, the thought is the model's to close.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.inputs.shown_images import settings_of
from lmmcl.models.processing.control_tokens import (
    ControlTokens,
    control_tokens,
    once,
    plain_reader,
    special_tokens,
    spelled,
)
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Message

THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("◁think▷", "◁/think▷"))
"""What opens and closes a thought."""
CLOSED = "\n{close}\n\n"
"""How a thought that nobody thinks is closed."""
_PRIVATE = range(0xE000, 0xF8FF)


@dataclass(frozen=True)
class Dialogue:
    """The text that a chat template writes; `answers` are (begin, end) of each answer in it, the end of its turn included.

    A private character stands for each control token that a text of the dialogue spells: `spelled` tells which. `mark` is another
    one, which may stand for an answer. Unless `ends`, the template ends no turn.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    spelled: Mapping[str, str]
    mark: str
    ends: bool

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """The text in its order: (text, whether it is an answer)."""
        at = 0
        for begin, end in self.answers:
            yield self.text[at:begin], False
            yield self.text[begin:end], True
            at = end
        if at < len(self.text):
            yield self.text[at:], False


class Renderer:
    """Renders one dialogue, with private characters that none of its texts holds for what must be found again."""

    def __init__(self, processor: Any, messages: Sequence[Message]) -> None:
        self.processor, self.thinks = processor, thinking(processor)
        self.system = settings_of(processor).system
        used = set().union(*(message.content for message in messages))
        self._free = (chr(code) for code in _PRIVATE if chr(code) not in used)
        self.begin, self.end, self.mark = (next(self._free) for _ in range(3))
        self.spelled: dict[str, str] = {}
        self.quoted = [self._quote(message, number) for number, message in enumerate(messages, start=1)]

    def _quote(self, message: Message, number: int) -> Message:
        control = tokens_of(self.processor)
        pattern = control.pattern(message.role)
        shown = [message.content] if message.role == "assistant" else message.content.split(IMAGE_PLACEHOLDER)
        if pattern is None or not any(pattern.search(text) for text in shown):
            return message
        if plain_reader(self.processor) is None:
            named = ", ".join(repr(token) for token in spelled(" ".join(shown), pattern))
            raise UserError(
                f"turn {number} ({message.role}) spells {named}, which the model's tokenizer cannot read as plain text"
            )
        texts = [pattern.sub(lambda match: self._stand_in(match[0]), text) for text in shown]
        return Message(message.role, IMAGE_PLACEHOLDER.join(texts))

    def _stand_in(self, token: str) -> str:
        """The private character for a control token that a text spells: neither template nor processor takes it for the token."""
        known = {spelling: character for character, spelling in self.spelled.items()}
        character = known.get(token) or next(self._free)
        self.spelled[character] = token
        return character

    def write(self, until: int, *, prompt: bool, marked: bool = False) -> str:
        """The template's text of the first messages, with the generation prompt or without; with where answers lie, if `marked`."""
        turns = [
            {"role": message.role, "content": _parts(self._mark(message) if marked else message)}
            for message in self.quoted[:until]
        ]
        if self.system is not None and self.quoted[0].role != "system":
            turns.insert(0, {"role": "system", "content": [{"type": "text", "text": self.system}]})
        text = render(self.processor, turns, prompt=prompt, thinks=self.thinks)
        if prompt and not self.thinks and (close := opened(text)):
            text += CLOSED.format(close=close)
        return text

    def _mark(self, message: Message) -> Message:
        if message.role != "assistant":
            return message
        thought, answer = _split_thought(message.content)
        core = answer.strip()
        before, after = answer[: len(answer) - len(answer.lstrip())], answer[len(answer.rstrip()) :] if core else ""
        return Message("assistant", f"{thought}{before}{self.begin}{core}{self.end}{after}")

    def dialogue(self, *, with_answer: bool) -> Dialogue:
        """The messages with the last answer, or up to it."""
        last = len(self.quoted) - 1
        self._refuse_thoughts(self.quoted[: last + with_answer])
        marked = self.write(last + with_answer, prompt=not with_answer, marked=True)
        text, places = self._places(marked)
        if text != self.write(last + with_answer, prompt=not with_answer):
            raise UserError("the chat template renders a marked answer as another text, so answers cannot be located")
        turns = [at for at, message in enumerate(self.quoted[: last + with_answer]) if message.role == "assistant"]
        if len(places) != len(turns):
            raise UserError("the chat template does not render every answer exactly once")
        answers: list[tuple[int, int]] = []
        ends = True
        for at, (begin, end) in zip(turns, places, strict=True):
            before = self.write(at, prompt=True)
            if at == last and not text.startswith(before):
                return self._after_prompt(before, text, answers, end)
            closing = end_of_turn_text(self.processor, text[end:])
            ends = ends and bool(closing)
            answers.append((len(before) if text.startswith(before) else begin, end + len(closing)))
        if with_answer:
            text = text[: answers[-1][1]]
        return Dialogue(text, tuple(answers), self.spelled, self.mark, ends)

    def _refuse_thoughts(self, messages: Sequence[Message]) -> None:
        """Raises UserError for an answer with a thought, where the template could teach it and is asked not to."""
        if self.thinks or not knows_thoughts(self.processor):
            return
        for number, message in enumerate(messages, start=1):
            if message.role == "assistant" and _split_thought(message.content)[0]:
                raise UserError(
                    f"turn {number} (assistant) holds a thought, and thinking is off: set `thinking: on` to teach it, or leave "
                    "it out of the answer"
                )

    def _after_prompt(self, before: str, text: str, answers: list[tuple[int, int]], end: int) -> Dialogue:
        """The last answer behind a generation prompt that the template's own text of the whole dialogue does not begin with.

        So it is where a prompt opens a thought and the text of the dialogue holds none.
        """
        earlier = [(begin, stop) for begin, stop in answers if text[:stop] == before[:stop]]
        if len(earlier) < len(answers):
            raise UserError("the chat template renders earlier turns differently before a generation prompt")
        content = self.quoted[-1].content
        close = opened(before)
        if close and close in content:
            content = content.strip().removeprefix(_OPENS[close]).lstrip("\n")
        elif close:
            content = CLOSED.format(close=close) + content
        closing = end_of_turn_text(self.processor, text[end:])
        whole = before + content.rstrip() + closing
        return Dialogue(whole, (*earlier, (len(before), len(whole))), self.spelled, self.mark, bool(closing))

    def _places(self, marked: str) -> tuple[str, list[tuple[int, int]]]:
        """The text without the marks, and where each answer began and ended."""
        text, places, begin = "", [], None
        for piece in re.split(f"([{self.begin}{self.end}])", marked):
            if piece == self.begin:
                begin = len(text)
            elif piece == self.end:
                places.append((len(text) if begin is None else begin, len(text)))
                begin = None
            else:
                text += piece
        return text, places


_OPENS = {close: begin for begin, close in THOUGHTS}


def render(processor: Any, turns: list[dict[str, Any]], *, prompt: bool, thinks: bool = False) -> str:
    """The chat template's text."""
    more = {"enable_thinking": thinks} if "enable_thinking" in str(processor.chat_template) else {}
    return processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt, **more)


def tokens_of(processor: Any) -> ControlTokens:
    """The control tokens of a processor."""

    def written() -> str:
        turns = [("user", "?"), ("assistant", "!"), ("user", "?")]
        shown = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns]
        return render(processor, shown, prompt=True)

    return control_tokens(processor, written)


def thinking(processor: Any) -> bool:
    """Whether the model may think before it answers."""
    return getattr(processor, "thinking", False)


def knows_thoughts(processor: Any) -> bool:
    """Whether the chat template can open a thought."""
    template = str(processor.chat_template)
    return "enable_thinking" in template or any(begin in template for begin, _ in THOUGHTS)


def let_think(processor: Any, place: str) -> None:
    """Let the model of a processor think before it answers; raises UserError where its chat template knows no thoughts."""
    if not knows_thoughts(processor):
        raise UserError("its chat template has no thinking mode; remove `thinking: on`", file=place)
    processor.thinking = True  # an attribute of the processor: it goes where the processor goes


def opened(text: str) -> str | None:
    """What closes the thought that a text ends in, if it does."""
    for begin, close in THOUGHTS:
        if text.rfind(begin) > text.rfind(close):
            return close
    return None


def opened_by_prompt(processor: Any) -> bool:
    """Whether an answer begins inside a thought that the generation prompt opens."""

    def is_open() -> bool:
        return opened(Renderer(processor, [Message("user", "?")]).write(1, prompt=True)) is not None

    return once(processor, "open", is_open)


def _split_thought(content: str) -> tuple[str, str]:
    """An assistant's turn up to the end of its thought, and the rest of it."""
    at = max(content.rfind(close) + len(close) if close in content else 0 for _, close in THOUGHTS)
    return content[:at], content[at:]


def end_of_turn_text(processor: Any, after: str) -> str:
    """The special token at the beginning of `after` with the space before it; empty when there is none."""
    specials = once(processor, "specials", lambda: list(special_tokens(processor)))
    begun = after.lstrip()
    end = max((token for token in specials if begun.startswith(token)), key=len, default="")
    if not end or end == processor.image_token:
        return ""
    return after[: after.index(end) + len(end)]


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "assistant":
        return [{"type": "text", "text": message.content}]
    parts: list[dict[str, Any]] = []
    for number, text in enumerate(message.content.split(IMAGE_PLACEHOLDER)):
        if number:
            parts.append({"type": "image"})
        if text.strip():
            parts.append({"type": "text", "text": text.strip("\n")})
    return parts
