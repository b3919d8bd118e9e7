"""An image-only assembly of any processor class of transformers.

Many classes also want a video or an audio processor. Those need torchvision or an audio library, and `AutoProcessor` then ends
in an ImportError or silently returns a bare tokenizer. Images and text need neither: the assembly is the class itself with an
empty stand-in for each part that it would read videos or sounds with, and changes nothing else.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

PREFIX = "ImageOnly"


class AbsentPart:
    """Stands for a video or audio processor: every setting that is read of it is None, and it reads nothing."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def __deepcopy__(self, memo: Any) -> AbsentPart:
        return self


def absent_parts(cls: Any) -> list[str]:
    """The parts of a processor class that neither images nor text need."""
    return [part for part in cls.get_attributes() if part != "image_processor" and "tokenizer" not in part]


@cache
def image_only(base: Any) -> Any:
    """A subclass of the processor class `base` without its video and audio parts."""

    mixin: Any = _parts_mixin()

    class ImageOnly(base, mixin):
        """The class that it derives from, for images alone."""

        whole = base

        def __init__(self, *parts: Any, **settings: Any) -> None:
            own = type(self).get_attributes()
            arguments = dict(zip(own, parts, strict=False)) | settings
            super().__init__(**arguments, **{part: AbsentPart() for part in absent_parts(base)})

        def save_pretrained(self, save_directory: Any, *more: Any, **settings: Any) -> Any:
            from transformers import ProcessorMixin

            return ProcessorMixin.save_pretrained(
                self, save_directory, *more, **settings
            )  # without the absent parts' files

    signature = inspect.signature(base.__init__)
    kept = [name for name in signature.parameters if name not in absent_parts(base)]
    parameters = [signature.parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY) for name in kept[1:]]
    variadic = [one for one in parameters if signature.parameters[one.name].kind is inspect.Parameter.VAR_KEYWORD]
    named = [one for one in parameters if one not in variadic]
    ImageOnly.__init__.__signature__ = inspect.Signature([signature.parameters[kept[0]], *named])  # type: ignore[attr-defined]
    ImageOnly.__name__ = ImageOnly.__qualname__ = f"{PREFIX}{base.__name__}"
    return ImageOnly


def build(cls: Any, parts: dict[str, Any], settings: dict[str, Any]) -> Any:
    """A processor of `parts` by name, with those of `settings` that its class takes."""
    takes = inspect.signature(cls.__init__).parameters
    known = {name: value for name, value in settings.items() if name in takes and name not in parts}
    return cls(**parts, **known)


@cache
def _parts_mixin() -> Any:
    from transformers import ProcessorMixin

    class Parts(ProcessorMixin):
        """Stands between a processor class and ProcessorMixin, and takes the absent parts out of what the class passes on."""

        whole: Any

        def __init__(self, *parts: Any, **settings: Any) -> None:
            every = self.whole.get_attributes()
            arguments = dict(zip(every, parts, strict=False)) | settings
            for name in absent_parts(self.whole):
                setattr(self, name, arguments.pop(name))
            super().__init__(**arguments)

        @classmethod
        def from_args_and_dict(cls, args: Any, processor_dict: dict[str, Any], **settings: Any) -> Any:
            parts = dict(zip(cls.get_attributes(), args, strict=True))
            return build(cls, parts, {**processor_dict, **settings})

    return Parts
