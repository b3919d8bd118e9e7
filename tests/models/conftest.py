"""The tiny models, loaded once for all tests of this folder that do not change them."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmmcl.models import get_model

TINY = ("tiny-onevision", "tiny-next", "tiny-qwen")


@cache
def _loaded(name: str) -> tuple[Any, Any, Any]:
    model = get_model(name)
    return model, model.load_model(), model.load_processor()


@pytest.fixture(params=TINY)
def tiny(request: pytest.FixtureRequest) -> tuple[Any, Any, Any]:
    """(LMM, loaded model, processor) of each tiny model; nobody may change the loaded model."""
    return _loaded(request.param)


@pytest.fixture
def onevision() -> tuple[Any, Any, Any]:
    """(LMM, loaded model, processor) of tiny-onevision; nobody may change the loaded model."""
    return _loaded("tiny-onevision")


@pytest.fixture
def picture() -> Callable[..., Image.Image]:
    """Makes a picture of noise of a size."""
    rng = np.random.default_rng(0)

    def make(wide: int = 32, high: int = 32) -> Image.Image:
        return Image.fromarray(rng.integers(0, 255, (high, wide, 3), dtype=np.uint8))

    return make
