"""One question about one grey picture, read by a processor before anything is planned with it.

Which inputs a processor makes, and whether it can read an image at all with the libraries that are here, shows only when it does.
"""

from __future__ import annotations

from typing import Any

from lmmcl.errors import UserError
from lmmcl.models.processing.encode import encode
from lmmcl.tasks.examples import ask

SIZE = (96, 64)
"""Width and height of the picture in pixels."""


def try_processor(processor: Any, place: str) -> None:
    """Raises UserError, with the reason, when the processor cannot read a question about a picture with its answer."""
    from PIL import Image

    example = ask("trial", "What is this?", "grey", Image.new("RGB", SIZE, (127, 127, 127)))
    try:
        encode(processor, example, with_answer=True)
    except UserError as error:
        raise UserError(f"a question about an image cannot be read: {error.message}", file=place) from error
    except Exception as error:  # any class of transformers, in whatever way it fails
        reason = " ".join(str(error).split())
        raise UserError(
            f"a question about an image cannot be read: {type(processor).__name__} ends with {type(error).__name__}: {reason}",
            file=place,
        ) from error
