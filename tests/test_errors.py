"""An error of ours stays what it is, across processes and when its place becomes known."""

from __future__ import annotations

import pickle

import pytest

from lmmcl.errors import MOST_NAMES, UserError, unknown
from lmmcl.ledger.packs.packing import Busy
from lmmcl.ledger.record import DamagedError, DroppedError
from lmmcl.ledger.store import FullError, StoreError
from lmmcl.tasks.images import TooManyPixels
from lmmcl.training.stage_errors import StageError
from lmmcl.weights.delta import CheckpointError

KINDS = [UserError, DamagedError, DroppedError, StoreError, FullError, StageError, CheckpointError, TooManyPixels, Busy]


def test_all_kinds_are_looked_at() -> None:
    def below(kind: type[UserError]) -> set[type[UserError]]:
        # what Ray makes of an error in a task is also of its kind, but no class of ours
        own = {each for each in kind.__subclasses__() if each.__module__.startswith("lmmcl.")}
        return own | {deeper for each in own for deeper in below(each)}

    assert below(UserError) == set(KINDS[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_crosses_a_process_border_with_its_kind_and_its_place(kind: type[UserError]) -> None:
    back = pickle.loads(pickle.dumps(kind("is cut", file="a.yaml", place="row 3")))
    assert type(back) is kind
    assert (str(back), back.message, back.file, back.place) == ("a.yaml: row 3: is cut", "is cut", "a.yaml", "row 3")


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_that_is_told_its_place_keeps_its_kind(kind: type[UserError]) -> None:
    told = kind("is cut", place="row 3").at(file="a.yaml")
    assert type(told) is kind and str(told) == "a.yaml: row 3: is cut"


def test_an_error_that_ray_carried_out_of_a_task_is_of_its_kind_at_the_bottom() -> None:
    from ray.exceptions import RayTaskError

    from lmmcl.training.ray_train.retry_policy import root_of

    carried = RayTaskError("f", "traceback", DamagedError("is cut", file="delta"))
    root = root_of(pickle.loads(pickle.dumps(carried)).as_instanceof_cause())
    assert type(root) is DamagedError and root.args == ("delta: is cut",)


def test_a_wrong_name_among_thousands_is_answered_with_the_near_ones_and_some() -> None:
    names = [f"step-{number:04d}" for number in range(5000)]
    told = unknown("step", "step-49999", names)
    assert "did you mean 'step-4999'" in told and told.endswith(f"and {5000 - MOST_NAMES} more")
    assert told.count("step-00") == MOST_NAMES and len(told) < 2000
