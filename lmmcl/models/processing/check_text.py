"""How the tokenizer of one model reads a text: what it cannot read, and what it reads otherwise than it may be meant."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lmmcl.models.processing.control_tokens import plain_reader, spelled
from lmmcl.models.processing.rendering import tokens_of
from lmmcl.tasks.examples import IMAGE_PLACEHOLDER, Role


class TextReader:
    """Judges texts for the model whose processor it is given."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.control = tokens_of(processor)
        self.can_quote = plain_reader(processor) is not None
        marks = sorted(self.control.marks | self.control.frames, key=lambda token: (-len(token), token))
        self.marks = re.compile("|".join(map(re.escape, marks))) if marks else None

    def __call__(self, role: Role, text: str) -> tuple[str | None, Sequence[str]]:
        """What is wrong with the text of a turn (None: nothing), and what is noted of it."""
        shown = text if role == "assistant" else text.replace(IMAGE_PLACEHOLDER, "")
        control = spelled(shown, self.control.pattern(role))
        if control and not self.can_quote:
            named = ", ".join(map(repr, control))
            return f"spells {named}, which the model's tokenizer cannot read as plain text", ()
        notes = [f"{token!r}, a control token of the model, read as plain text" for token in control]
        for token in spelled(shown, self.marks):
            if token not in control:
                notes.append(f"{token!r}, read as the model's own token")
        return None, notes
