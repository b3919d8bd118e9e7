"""What a failed computation deserves: another try without limit, one of a few, or none.

A node that goes (spot capacity taken back, a machine lost) says nothing about the work on it. A process that dies or
an error of the surroundings may pass. An error that the same input would raise again is reported at once.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from ray.exceptions import (
    NodeDiedError,
    RayActorError,
    RuntimeEnvSetupError,
    TaskCancelledError,
    TaskUnschedulableError,
)

from lmmcl.back_off import BackOff
from lmmcl.errors import UserError
from lmmcl.ledger.store import FullError, StoreError, is_full
from lmmcl.training.stage_errors import PreemptedError

if TYPE_CHECKING:
    from ray.train import WorkerGroupError

PAUSES = BackOff()
"""Between the tries of a step, a worker group or an upload."""


class RetryPolicy(Enum):
    """What to do about a failure."""

    UNLIMITED = "unlimited"
    """Its node went, or was about to: try again, however often."""
    LIMITED = "limited"
    """May pass: try again a set number of times."""
    NEVER = "never"
    """The same again: tell it."""


NOT_TRANSIENT = (
    UserError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    ModuleNotFoundError,
    NameError,
    NotImplementedError,
    ArithmeticError,
    ValueError,
    RuntimeEnvSetupError,
    TaskCancelledError,
)
"""Errors of input and program. Not RuntimeError: CUDA's and the network's are among them; nor ImportError: a library that is there
cannot be loaded when memory runs out."""
NODE_LOST = ("its node has died", "node was terminated", "node died", "preempt")
"""How Ray says that an actor went with its node."""


def root_of(error: BaseException) -> BaseException:
    """The error at the bottom: Ray wraps one for each process that it passes."""
    while True:
        inner = next(
            (
                cause
                for name in ("cause", "health_check_failure", "_base_exc")
                if isinstance(cause := getattr(error, name, None), BaseException) and cause is not error
            ),
            None,
        )
        if inner is None:
            return error.__cause__ if isinstance(error.__cause__, UserError) else error
        error = inner


def classify_error(error: BaseException) -> RetryPolicy:
    """What `error`, of a task or of one worker of a group, deserves."""
    root = root_of(error)
    if isinstance(root, (NodeDiedError, PreemptedError, TaskUnschedulableError)):  # the last: bound to a node that went
        return RetryPolicy.UNLIMITED
    if isinstance(root, RayActorError):
        message = str(root).lower()
        return (
            RetryPolicy.UNLIMITED
            if root.preempted or any(words in message for words in NODE_LOST)
            else RetryPolicy.LIMITED
        )
    if is_store_unavailable(root):
        return RetryPolicy.LIMITED
    return RetryPolicy.NEVER if isinstance(root, NOT_TRANSIENT) or is_full(root) else RetryPolicy.LIMITED


def is_store_unavailable(error: BaseException) -> bool:
    """Whether an error says that the store could not be reached, which passes, unlike a full one."""
    root = root_of(error)
    return isinstance(root, StoreError) and not isinstance(root, FullError)


def classify_group_error(failure: WorkerGroupError) -> tuple[RetryPolicy, BaseException]:
    """What the failure of a worker group deserves, and the error that decides it: `failure` itself where no worker has one.

    When a worker is lost the others fail as well, of broken connections; and a row that one worker cannot read stops all.
    """
    errors = [raised for raised in failure.worker_failures.values() if raised is not None]
    judged = [(classify_error(error), root_of(error)) for error in errors or [failure]]
    for verdict in (RetryPolicy.UNLIMITED, RetryPolicy.NEVER, RetryPolicy.LIMITED):
        for policy, error in judged:
            if policy is verdict:
                return verdict, error
    raise AssertionError("every error has one of the verdicts")
