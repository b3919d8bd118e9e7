"""How the columns of a row are read as a dialogue: the usual layouts by their columns, any other by `columns`.

| columns | known from |
|---|---|
| `conversations`, `messages` | LLaVA, ShareGPT · Hugging Face, OpenAI, ms-swift: read as they are (`dialogue.py`) |
| `question` and `answer` or `answers` | VQA |
| `query` and `response`, perhaps `history` | ms-swift |
| `instruction` and `output`, perhaps `input`, `history` | Alpaca |
| `prompt` and `completion`, texts or messages | TRL |
| an image and `caption`, `captions` or `text` | pairs of image and caption |
| an image and `label` | folders of classes |

All but the first become `messages`; problems name the column that the user knows. A row with several of them, or none,
is refused: nothing is guessed. So is a row that would leave out an image.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lmmcl.errors import shown
from lmmcl.tasks.layouts.columns import Columns
from lmmcl.tasks.layouts.dialogue import TURN_FIELDS, Complain
from lmmcl.tasks.layouts.image_values import unasked_image
from lmmcl.tasks.layouts.layout_help import ambiguous, unrecognised
from lmmcl.tasks.layouts.values import accepted_answers, most_common, several, text_of

LAYOUTS = 1
"""Raised when a row of one of these layouts would be read into another Example; part of the identity of data that have them."""

PAIRS = {
    "question": ("answer", "answers"),
    "query": ("response",),
    "instruction": ("output",),
    "prompt": ("completion",),
}
"""Column of the question → columns of the answer."""
IMAGES = ("image", "images", "image_path", "file_name")
CAPTIONS = ("caption", "captions", "text")
CAPTION_QUESTION, LABEL_QUESTION = "Describe the image.", "What is shown in the image?"
"""Asked where neither the row nor the sweep says what."""


@dataclass(slots=True)
class Laid:
    """A row as `messages` or `conversations`; `places` say which column of the user's a place in it is."""

    row: dict[str, Any]
    layout: str = ""
    places: dict[str, str] = field(default_factory=dict)

    def place(self, place: str) -> str:
        """The place in the user's own columns."""
        for ours, theirs in self.places.items():
            if place == ours or place.startswith((f"{ours}[", f"{ours}.")):
                return theirs + place[len(ours) :]
        return place


def lay_out(row: dict[str, Any], columns: Columns, complain: Complain) -> Laid | None:
    """The row in a form that `dialogue.py` reads; None after a complaint."""
    names = {ours: theirs for ours, theirs in columns.names if len(theirs) == 1}
    form = columns.form()
    if columns and (row := _renamed(row, columns, complain)) is None:
        return None
    native = [name for name in TURN_FIELDS if row.get(name) is not None]
    if form in TURN_FIELDS:
        native = [form]
    if native and form in (None, *TURN_FIELDS):
        if len(native) > 1:
            return complain("row", ambiguous(row, native))
        if columns.question is not None:
            return complain("row", f"is a dialogue ({native[0]}), and the sweep gives a question too; leave one out")
        return _with_system(row, native[0], {ours: theirs[0] for ours, theirs in names.items()})
    return _Reading(row, columns, complain).read(form)


def _renamed(row: dict[str, Any], columns: Columns, complain: Complain) -> Any:
    """The row with the columns that `columns` names under our names; None after a complaint."""
    needed = {"question", "answer", "answers", "caption", "label", "messages", "conversations"}
    named: dict[str, Any] = {}
    for ours, theirs in columns.names:
        missing = [column for column in theirs if column not in row]
        if missing and ours in needed:
            listed = ", ".join(map(str, list(row)[:12])) or "(none)"
            return complain("row", f"has no column {shown(missing[0])} ({ours}); its columns: {listed}")
        if len(theirs) > 1:
            named[ours] = [value for column in theirs for value in several(row.get(column))]
        elif theirs[0] in row:
            named[ours] = row[theirs[0]]
    used = columns.theirs()
    return {**{name: value for name, value in row.items() if name not in used and name not in named}, **named}


def _with_system(row: dict[str, Any], column: str, places: dict[str, str]) -> Laid:
    """A dialogue as it is; a `system` column is its first turn where it has no such turn."""
    turns, system = row[column], row.get("system")
    places = {ours: theirs for ours, theirs in places.items() if ours != theirs}
    if not isinstance(system, str) or not system.strip() or not isinstance(turns, list) or not turns:
        return Laid(row, "", places)
    speaker, text = TURN_FIELDS[column]
    first = turns[0]
    if not isinstance(first, dict) or "system" in (first.get("role"), first.get("from")):
        return Laid(row, "", places)
    if speaker not in first:  # the keys of the other form
        speaker, text = next(keys for name, keys in TURN_FIELDS.items() if name != column)
    rest = {name: value for name, value in row.items() if name != "system"}
    theirs = places.get(column, column)
    moved = {f"{column}[{number + 1}]": f"{theirs}[{number}]" for number in range(len(turns))}
    system_at = {f"{column}[0].{text}": places.get("system", "system")}
    return Laid(
        {**rest, column: [{speaker: "system", text: system}, *turns]}, "system", {**system_at, **moved, **places}
    )


class _Reading:
    """One row that is not a list of turns."""

    def __init__(self, row: dict[str, Any], columns: Columns, complain: Complain) -> None:
        self.row, self.columns, self.complain = row, columns, complain
        self.theirs = {ours: theirs[0] for ours, theirs in columns.names if len(theirs) == 1}
        self.messages: list[dict[str, Any]] = []
        self.places: dict[str, str] = {}
        self.used: set[str] = set()
        self.answers: list[str] | None = None

    def read(self, form: str | None) -> Laid | None:
        image = next((name for name in IMAGES if self.row.get(name) not in (None, "", [])), None)
        layout = form or self.recognise(image)
        if layout is None or not self.begin():
            return None
        question, answers = self.parts(layout)
        if (layout in PAIRS and not self.ask(layout, question)) or (layout not in PAIRS and not self.ask_for(layout)):
            return None
        return self.finish(layout, image) if self.answer(answers) else None

    def recognise(self, image: str | None) -> str | None:
        """The one layout that the columns are of: the column of its question, `caption` or `label`; None after a complaint."""
        layouts = [
            name
            for name, answers in PAIRS.items()
            if name in self.row and any(column in self.row for column in answers)
        ]
        if not layouts and self.columns.question and any(column in self.row for column in PAIRS["question"]):
            layouts = ["question"]
        if not layouts and any(name in self.row for name in IMAGES):
            captions = [name for name in CAPTIONS if name in self.row]
            layouts = [*captions, *(["label"] if "label" in self.row else [])]
            if "caption" in layouts and "text" in layouts:
                layouts.remove("text")
        if len(layouts) > 1:
            return self.complain("row", ambiguous(self.row, [f"{name} + {self.parts(name)[1][0]}" for name in layouts]))
        if not layouts:
            return self.complain("row", unrecognised(self.row))
        return layouts[0] if layouts[0] in PAIRS or layouts[0] == "label" else "caption"

    def parts(self, layout: str) -> tuple[str, list[str]]:
        """The column of the question, and those of the answer that the row has."""
        answers = PAIRS.get(layout) or (CAPTIONS if layout in CAPTIONS else ("label",))
        return layout, [name for name in answers if name in self.row] or [answers[0]]

    def own(self, column: str) -> str:
        """A column as the user calls it."""
        return self.theirs.get(column, column)

    def add(self, role: str, content: Any, column: str) -> None:
        self.places[f"messages[{len(self.messages)}].content"] = column
        self.messages.append({"role": role, "content": content})

    def begin(self) -> bool:
        """The system turn and earlier turns, if the row has any."""
        system, history = self.row.get("system"), self.row.get("history")
        if system not in (None, ""):
            self.add("system", system, self.own("system"))
        self.used.add("system")
        if history is None or history == []:
            return True
        self.used.add("history")
        if not isinstance(history, list):
            return self.refuse("history", "is not a list of [question, answer]")
        for number, pair in enumerate(history):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                return self.refuse(f"history[{number}]", "is not [question, answer]")
            self.add("user", pair[0], f"history[{number}][0]")
            self.add("assistant", pair[1], f"history[{number}][1]")
        return True

    def refuse(self, place: str, message: str) -> bool:
        self.complain(place, message)
        return False

    def ask(self, layout: str, column: str) -> bool:
        """The question of the row, or the one that the sweep gives."""
        own = self.own(column)
        self.used.add(column)
        if self.columns.question is not None:
            if column in self.row:
                return self.refuse("row", f"has a question ({own!r}), and the sweep gives one too; leave one out")
            self.add("user", self.columns.question, "question")
            return True
        value = self.row.get(column)
        if layout == "prompt" and isinstance(value, list):
            return self.join(value, own)
        if (
            options := next((name for name in ("choices", "options") if self.row.get(name)), None)
        ) and not self.columns:
            return self.refuse(
                "row",
                f"has options to choose from ({options!r}), which the question would not show: write them into the question, or "
                "say that they are not meant with `columns: {question: question, answer: answer}`",
            )
        value = text_of(value, own, self.complain)
        more = self.row.get("input") if layout in ("instruction", "question") else None
        if layout == "instruction" or "input" in self.theirs:
            self.used.add("input")
            value = f"{value}\n{more}" if isinstance(value, str) and isinstance(more, str) and more else value
        if value is not None:
            self.add("user", value, own)
        return value is not None

    def ask_for(self, layout: str) -> bool:
        """The question for a picture with a caption or a class."""
        default = LABEL_QUESTION if layout == "label" else CAPTION_QUESTION
        self.add("user", self.columns.question or default, "question")
        return True

    def join(self, turns: list[Any], column: str) -> bool:
        """Turns that are written as messages."""
        for number, turn in enumerate(turns):
            self.places[f"messages[{len(self.messages)}]"] = f"{column}[{number}]"
            self.messages.append(turn)
        return True

    def answer(self, columns: list[str]) -> bool:
        """The answer that is taught, and all that count."""
        self.used.update(columns)
        column = columns[0]
        value, own = self.row.get(column), self.own(column)
        if column == "label" and isinstance(value, int):
            return self.refuse(own, f"is {value}, the number of a class; expected is its name, as a text")
        if column == "completion" and isinstance(value, list) and any(isinstance(turn, dict) for turn in value):
            return self.join(value, own)
        accepted = accepted_answers(value, own, self.complain, cell=column == "answers")
        if accepted is None:
            return False
        self.add("assistant", most_common(accepted) if column == "answers" else accepted[0], own)
        if len(columns) > 1 and "answers" in columns[1:] and several(self.row["answers"]):
            own = self.own("answers")
            accepted = accepted_answers(self.row["answers"], own, self.complain, cell=True)
            if accepted is None:
                return False
            self.answers = accepted
        elif len(accepted) > 1 or column == "answers":
            self.answers = accepted
        self.places["answers"] = own
        return True

    def finish(self, layout: str, image: str | None) -> Laid | None:
        """The row as messages, with the columns that are neither image nor text as they are."""
        kept: dict[str, Any] = {"messages": self.messages}
        if image is not None:
            kept["image"] = several(self.row[image]) if isinstance(self.row[image], str) else self.row[image]
            if isinstance(kept["image"], list) and len(kept["image"]) == 1 and isinstance(self.row[image], str):
                kept["image"] = kept["image"][0]
            self.places["image"] = self._image_place(image)
        if self.answers is not None:
            kept["answers"] = self.answers
        rest = {
            name: value
            for name, value in self.row.items()
            if name not in self.used and name != image and name not in (*kept, "images", *TURN_FIELDS)
        }
        if layout in ("caption", "label") and image is None:
            return self.complain("row", f"has no image, and a {layout} is nothing to teach without one")
        if (left := unasked_image(rest, image is not None)) is not None:
            which = "another image" if image else "an image"
            named = [column for ours, theirs in self.columns.names if ours in IMAGES for column in theirs]
            missing = f"has no column {', '.join(map(repr, named))} (image); " if named and not image else ""
            return self.complain(
                "row",
                f"{missing}column {left!r} looks like {which} that would not be shown; name it with `columns: {{image: {left}}}` "
                "(several: `image: [first, second]`), or remove the column",
            )
        return Laid({**rest, **kept}, layout, self.places)

    def _image_place(self, image: str) -> str:
        columns = dict(self.columns.names).get(image, ())
        return f"{{{', '.join(columns)}}}" if len(columns) > 1 else self.own(image)
