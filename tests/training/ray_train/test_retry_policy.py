"""What a failure deserves: another try without limit, one of a few, or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from ray.exceptions import (
    ActorDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayTaskError,
    TaskCancelledError,
    TaskUnschedulableError,
    WorkerCrashedError,
)
from ray.train.v2.api import exceptions
from ray.train.v2.api.exceptions import WorkerGroupError

from lmmcl.errors import UserError
from lmmcl.ledger.store import StoreError, full
from lmmcl.training.ray_train.retry_policy import (
    PreemptedError,
    RetryPolicy,
    classify_error,
    classify_group_error,
    root_of,
)


def group(*errors: Exception) -> WorkerGroupError:
    """A worker group, each of whose workers failed of one of `errors`."""
    return WorkerGroupError("failed", worker_failures=dict(enumerate(errors)))


def in_task(error: Exception) -> RayTaskError:
    """As it comes out of a task."""
    return RayTaskError("f", "traceback", error).as_instanceof_cause()


@pytest.mark.parametrize(
    "error",
    [NodeDiedError("gone"), in_task(PreemptedError("told to end")), TaskUnschedulableError("the node is dead")],
)
def test_work_whose_node_went_is_tried_again_however_often(error: Exception) -> None:
    assert classify_error(error) is RetryPolicy.UNLIMITED


@pytest.mark.parametrize(
    "error",
    [
        WorkerCrashedError(),
        OutOfMemoryError("full"),
        ActorDiedError(),
        in_task(OSError("no space left on device")),
        in_task(RuntimeError("CUDA error")),
        in_task(ConnectionError("reset")),
        in_task(ImportError("failed to map segment from shared object")),
        in_task(StoreError("cannot be reached")),
    ],
)
def test_what_may_pass_is_tried_again_a_few_times(error: Exception) -> None:
    assert classify_error(error) is RetryPolicy.LIMITED


@pytest.mark.parametrize(
    "error",
    [
        in_task(UserError("bad row")),
        in_task(full(Path("/somewhere"), "/somewhere")),
        in_task(KeyError("x")),
        in_task(ZeroDivisionError()),
        in_task(OSError(errno.ENOSPC, "No space left on device")),
        in_task(ModuleNotFoundError("no module")),
        TaskCancelledError(),
    ],
)
def test_what_the_same_input_brings_again_is_told_at_once(error: Exception) -> None:
    assert classify_error(error) is RetryPolicy.NEVER


def test_an_error_of_ours_is_found_below_what_ray_wrapped_it_in() -> None:
    assert root_of(in_task(UserError("bad row", place="row 3"))).args == ("row 3: bad row",)
    told = RuntimeError("loading failed")
    told.__cause__ = UserError("bad row")
    assert isinstance(root_of(told), UserError)


def test_of_a_group_the_lost_worker_decides_then_the_broken_row_for_the_others_fail_of_them() -> None:
    reset = in_task(RuntimeError("connection reset by peer"))
    row = in_task(UserError("bad row"))
    assert classify_group_error(group(reset, NodeDiedError("gone"), row))[0] is RetryPolicy.UNLIMITED
    verdict, reason = classify_group_error(group(reset, row))
    assert verdict is RetryPolicy.NEVER and isinstance(reason, UserError)
    assert classify_group_error(group(reset))[0] is RetryPolicy.LIMITED


@pytest.mark.skipif(not hasattr(exceptions, "NCCLHangError"), reason="this Ray has no such error")
def test_a_group_that_fails_without_a_failed_worker_is_judged_by_what_is_told_of_it() -> None:
    hang = exceptions.NCCLHangError("a collective call hangs", worker_failures={})
    assert classify_group_error(hang) == (RetryPolicy.LIMITED, hang)
