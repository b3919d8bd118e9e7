"""Nothing is collected while many modules are imported, and collections are as before when that has ended, in whatever way."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lmmcl.private_api.quick_imports import quick_imports

UNKNOWN = "lmmcl_no_such_module"


@pytest.fixture(autouse=True)
def _collecting() -> Iterator[None]:
    assert gc.isenabled()
    yield
    gc.enable()
    gc.unfreeze()


def test_nothing_is_collected_until_the_imports_have_ended() -> None:
    with quick_imports(UNKNOWN):
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_import_that_fails_leaves_collections_as_they_were() -> None:
    with pytest.raises(ModuleNotFoundError), quick_imports(UNKNOWN, keep=True):
        __import__(UNKNOWN)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_where_the_module_is_imported_already_nothing_is_different() -> None:
    with quick_imports("gc", keep=True):
        assert gc.isenabled()
    assert gc.get_freeze_count() == 0, "what is there by then may be a model that is to be freed"


def test_a_program_that_collects_nothing_itself_is_left_so() -> None:
    gc.disable()
    with quick_imports(UNKNOWN, keep=True):
        pass
    assert not gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_what_is_kept_is_never_looked_at_again() -> None:
    with quick_imports(UNKNOWN):
        pass
    assert gc.get_freeze_count() == 0
    with quick_imports(UNKNOWN, keep=True):
        pass
    assert gc.get_freeze_count() > 1000


LIBRARIES = """
import gc
from lmmcl.runner import execute
execute.this_run = lambda: {ray_job!r}
execute.load_libraries()
assert gc.isenabled()
import torch, transformers
print(gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize("ray_job", ["session/01000000", ""])
def test_libraries_are_kept_in_a_process_of_rays_and_not_in_one_of_the_user(ray_job: str) -> None:
    code = LIBRARIES.format(ray_job=ray_job)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(bool(ray_job))]
