"""Leaving libraries unloaded disturbs no thread that imports meanwhile."""

from __future__ import annotations

import sys
import threading
from types import ModuleType

import pytest
from transformers import utils

from lmmcl.private_api import trainer_imports


@pytest.fixture(autouse=True)
def _short_turns() -> object:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_modules_may_be_imported_by_other_threads_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_imports, "RECOGNISED", {"nowhere": {}})
    monkeypatch.setattr(utils, "is_nowhere_available", lambda: True, raising=False)
    monkeypatch.delitem(sys.modules, "transformers.trainer", raising=False)
    ended = threading.Event()

    def import_others() -> None:
        while not ended.is_set():
            for number in range(500):
                sys.modules[f"transformers_of_a_test_{number}"] = ModuleType("of_a_test")
            for number in range(500):
                del sys.modules[f"transformers_of_a_test_{number}"]

    thread = threading.Thread(target=import_others)
    thread.start()
    try:
        for _ in range(100):
            with trainer_imports.libraries_unloaded():
                pass
    finally:
        ended.set()
        thread.join()
    assert utils.is_nowhere_available()
