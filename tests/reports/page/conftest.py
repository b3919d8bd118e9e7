"""A headless browser for the tests of a module, whose pages must throw nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def no_fault(tab: Browser) -> Iterator[None]:
    """Fails where a page threw an error or logged one."""
    tab.faults.clear()
    yield
    tab.run("0")  # what was thrown before has arrived by then
    assert tab.faults == []
