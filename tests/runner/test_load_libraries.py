"""Heavy libraries are imported without collecting garbage meanwhile; afterwards garbage is collected as before."""

from __future__ import annotations

import gc
import weakref

import pytest

from lmmcl.runner.execute import load_libraries
from lmmcl.weights.freed_memory import collection_paused


def test_nothing_is_collected_while_libraries_are_imported():
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with collection_paused():
            pass
        assert not gc.isenabled(), "the outer one still holds"
    assert gc.isenabled()


def test_an_import_that_fails_leaves_collection_on():
    with pytest.raises(ImportError), collection_paused():
        raise ImportError("no such library")
    assert gc.isenabled()


def test_a_process_without_collection_stays_without():
    gc.disable()
    try:
        with collection_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_later_collections_pass_over_what_was_imported():
    load_libraries.cache_clear()
    before = gc.get_freeze_count()
    try:
        load_libraries()
        assert gc.isenabled() and gc.get_freeze_count() > before
        frozen = gc.get_freeze_count()
        load_libraries()
        assert gc.get_freeze_count() == frozen, "what a computation makes later may be garbage one day"
    finally:
        gc.unfreeze()


def test_garbage_from_before_is_not_kept_for_ever():
    class Circle:
        pass

    circle = Circle()
    circle.itself = circle
    gone = weakref.ref(circle)
    del circle
    load_libraries.cache_clear()
    try:
        load_libraries()
        assert gone() is None
    finally:
        gc.unfreeze()
