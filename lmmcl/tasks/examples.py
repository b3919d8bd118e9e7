"""Examples: dialogues about images, which are taught and asked; and sequences of them that are made on demand.

Nothing here is heavy: these objects travel to workers.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

from lmmcl.tasks.images import ImageSource, open_image

if TYPE_CHECKING:
    from PIL.Image import Image

Role = Literal["system", "user", "assistant"]
IMAGE_PLACEHOLDER = "<image>"
"""Marks in a message where an image goes; each model family replaces it by what its chat template expects."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a dialogue; `content` holds IMAGE_PLACEHOLDER once for each image shown in this turn."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One dialogue about zero or more images. The last message is the assistant's: what is taught, or the reference answer.

    `images` are PIL images, paths, or the bytes of image files (both decoded when used), in the order of the placeholders.
    `answers` are all answers that a metric accepts (default: the last message). `metadata` is copied into the sample file.
    """

    id: str
    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...] = ()
    answers: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the final answer."""
        return self.messages[:-1]

    @property
    def target(self) -> str:
        """The final answer: what is taught."""
        return self.messages[-1].content

    @property
    def references(self) -> tuple[str, ...]:
        """The answers that count as right."""
        return self.answers or (self.target,)

    def open_images(self) -> list[Image]:
        """The images as RGB (see `lmmcl.tasks.images`); raises UserError for one that cannot be shown."""
        return [open_image(image) for image in self.images]


def ask(id: str, question: str, answer: str, image: ImageSource | None = None, **more: Any) -> Example:
    """A one-turn example about one image (or none)."""
    content = f"{IMAGE_PLACEHOLDER}\n{question}" if image is not None else question
    return Example(
        id=id,
        messages=(Message("user", content), Message("assistant", answer)),
        images=() if image is None else (image,),
        **more,
    )


class Rows(Sequence[Example]):
    """Examples in a fixed order, each made when it is asked for: a subclass says how many there are, and makes one."""

    @abstractmethod
    def row(self, index: int) -> Example:
        """The example at `index`, from 0 to one less than there are."""

    def origin(self, index: int) -> int:
        """The row in the data that the example at `index` comes from; another than `index` where rows were chosen."""
        return index

    def values(self, field: str) -> list[Any]:
        """What each example's metadata say under `field`; None where they do not."""
        return [example.metadata.get(field) for example in self]

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> list[Example]: ...
    def __getitem__(self, at: int | slice) -> Example | list[Example]:
        if isinstance(at, slice):
            return [self.row(index) for index in range(len(self))[at]]
        if not -len(self) <= at < len(self):
            raise IndexError(f"there are {len(self)} examples, none at {at}")
        return self.row(range(len(self))[at])

    def __iter__(self) -> Iterator[Example]:
        # Sequence's own would take an IndexError of `row` for the end
        return (self.row(index) for index in range(len(self)))
