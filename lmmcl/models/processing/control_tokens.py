"""Tokens that only a chat template may write, and how a text that spells one is read as the plain text that it is.

A control token begins or ends a text or a turn, pads, or stands for an image, a video or a sound. The other special tokens
of a tokenizer (marks such as `<|box_start|>` or `<loc0042>`) are words of the model: a text that spells one means it. Those that
frame images (`<|vision_start|>`) are meant by an answer alone: in a question they would announce an image that is not there.

A text that spells a control token is tokenised by a copy of the tokenizer in which these tokens have other names, so that
what is spelled is cut into the pieces that any other text is cut into. A tokenizer that cannot be copied so cannot
read such a text; this is refused.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from lmmcl.errors import UserError
from lmmcl.tasks.examples import Role

# Processors are typed Any: which tokens one has is known by its family alone.
ALIAS = ("\U0010fffd", "\U0010fffc")
"""Around the other name of a control token: the last characters of the last private plane."""
_NAMED = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
_MEDIA = re.compile(r"pad|eo[mst]|image|img|video|audio|reserved|unused", re.IGNORECASE)
_MEDIA_ATTRIBUTES = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token", "fake_image_token")
RECENT = 1024
"""Results of each kind that are remembered of a processor."""
SHORT = 2000
"""Characters of a text that may come again: longer ones hardly do, and would fill memory."""
_CHANGING = threading.Lock()
_KNOWN: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()  # of each processor, see once


def once(processor: Any, what: str, find: Callable[[], Any]) -> Any:
    """What is the same for every example that a processor encodes, and takes long to find."""
    known = _KNOWN.setdefault(processor, {})
    if what not in known:
        known[what] = find()
    return known[what]


def lately(processor: Any, what: str, key: Any, find: Callable[[], Any]) -> Any:
    """As `once`, for what follows from `key` (texts, mostly): examples of one skill share their questions, and often their answers.

    The last RECENT results stay. Nobody may write into them.
    """
    known: dict[Any, Any] = once(processor, what, dict)
    with suppress(KeyError):
        return known[key]
    result = find()
    with _CHANGING:  # threads that decode ahead encode too
        known[key] = result
        if len(known) > RECENT:
            del known[next(iter(known))]
    return result


def forget(processor: Any) -> None:
    """Find everything again: the processor was changed."""
    _KNOWN.pop(processor, None)


@dataclass(frozen=True)
class ControlTokens:
    """The control tokens of a processor: `always`, and the `frames` of images, which an answer may hold."""

    always: frozenset[str]
    frames: frozenset[str]
    marks: frozenset[str]
    """Special tokens that any text may hold."""

    def pattern(self, role: Role) -> re.Pattern[str] | None:
        """Matches a control token that a turn of `role` must not become; None where there is none."""
        tokens = self.always if role == "assistant" else self.always | self.frames
        return _any_of(tokens) if tokens else None


def special_tokens(processor: Any) -> dict[str, int]:
    """The tokens that the tokenizer calls special, with their numbers."""
    added = processor.tokenizer.added_tokens_decoder
    return {str(token): number for number, token in added.items() if token.special}


def control_tokens(processor: Any, written: Callable[[], str]) -> ControlTokens:
    """The control tokens of a processor; `written` renders a dialogue without images by its chat template."""
    return once(processor, "control", lambda: _control_tokens(processor, written()))


def _control_tokens(processor: Any, written: str) -> ControlTokens:
    special = special_tokens(processor)
    media = {str(token) for name in _MEDIA_ATTRIBUTES for token in _named(processor, name)}
    numbers = getattr(processor, "image_token_ids", None) or []
    media |= {processor.tokenizer.convert_ids_to_tokens(number) for number in numbers if number is not None}
    named = {str(token) for name in _NAMED for token in _named(processor, f"{name}_token")}
    turns = {token for token in special if token in written}
    always = named | turns | media | {token for token in special if _MEDIA.search(token)}
    template = str(processor.chat_template)
    shown = {str(token) for token in processor.tokenizer.special_tokens_map.values() if isinstance(token, str)}
    frames = {token for token in special if token in template or token in shown} - always
    return ControlTokens(frozenset(always), frozenset(frames), frozenset(special.keys() - always - frames))


def _named(processor: Any, attribute: str) -> list[Any]:
    values = [getattr(holder, attribute, None) for holder in (processor, processor.tokenizer)]
    return [value for value in values if value]


def spelled(text: str, pattern: re.Pattern[str] | None) -> list[str]:
    """The control tokens that a text spells, each once, in their order."""
    return list(dict.fromkeys(pattern.findall(text))) if pattern else []


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, sorted(tokens, key=lambda token: (-len(token), token)))))


# --- reading what is spelled as plain text -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PlainReader:
    """A copy of a tokenizer in which control tokens have other names."""

    tokenizer: Any
    aliases: Mapping[str, str]
    pattern: re.Pattern[str]
    numbers: frozenset[int]

    def ids(self, parts: Iterable[tuple[str, bool]]) -> list[int]:
        """The tokens of a text in `parts`: (text, whether it is plain, whatever it spells)."""
        parts = list(parts)
        if any(mark in text for text, _ in parts for mark in ALIAS):
            raise UserError(f"holds U+{ord(ALIAS[0]):X} or U+{ord(ALIAS[1]):X} beside the name of a control token")
        written = 0
        named = []
        for text, plain in parts:
            if not plain:
                text, count = self.pattern.subn(lambda match: self.aliases[match[0]], text)
                written += count
            named.append(text)
        ids: list[int] = self.tokenizer.encode("".join(named), add_special_tokens=False).ids
        if sum(token in self.numbers for token in ids) != written:
            raise UserError("spells a control token that the tokenizer cannot read as plain text")
        return ids


def plain_reader(processor: Any) -> PlainReader | None:
    """The reader of texts that spell control tokens; None where the tokenizer cannot be copied under other names."""
    return once(processor, "plain", lambda: _plain_reader(processor))


def _plain_reader(processor: Any) -> PlainReader | None:
    from tokenizers import Tokenizer

    tokenizer = processor.tokenizer
    if not getattr(tokenizer, "is_fast", False):
        return None
    known: ControlTokens = once(processor, "control", lambda: None)
    assert known is not None, "the control tokens are found first"
    numbers = tokenizer.get_added_vocab()
    renamed = {token: numbers[token] for token in known.always | known.frames if token in numbers}
    aliases = {token: f"{ALIAS[0]}{number}{ALIAS[1]}" for token, number in renamed.items()}
    data = json.loads(tokenizer.backend_tokenizer.to_str())
    _rename(data, aliases)
    copy = Tokenizer.from_str(json.dumps(data))
    copy.no_truncation()
    copy.no_padding()
    if any(copy.token_to_id(alias) != renamed[token] for token, alias in aliases.items()):
        return None
    return PlainReader(copy, aliases, _any_of(aliases), frozenset(renamed.values()) - {tokenizer.unk_token_id})


def _rename(data: dict[str, Any], aliases: Mapping[str, str]) -> None:
    """Give tokens other names in a tokenizer's JSON, so that no text makes them."""
    for added in data["added_tokens"]:
        added["content"] = aliases.get(added["content"], added["content"])
    model = data["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {aliases.get(word, word): number for word, number in model["vocab"].items()}
    else:  # Unigram: pieces with their scores
        model["vocab"] = [[aliases.get(word, word), *more] for word, *more in model["vocab"]]
    if "merges" in model:
        pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in model["merges"]]
        model["merges"] = [pair for pair in pairs if not aliases.keys() & {*pair, "".join(pair)}]
    if model.get("unk_token") in aliases:
        model["unk_token"] = aliases[model["unk_token"]]
