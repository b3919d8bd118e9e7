"""What a worker group leaves behind where the store is elsewhere: the files stay on their node, and are uploaded from there.

Ray Train would upload them while the group, and so its GPUs, waits, and the task that waits for the group would fetch and
upload them again. So rank 0 reports only where they are; once the group has gone, a task on that node records them.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from lmmcl.errors import explain
from lmmcl.ledger import Ledger, Record
from lmmcl.steps import Step
from lmmcl.training.ray_train.retry_policy import (
    PAUSES,
    RetryPolicy,
    classify_error,
    is_store_unavailable,
    root_of,
)

OUTPUT = "left.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteOutput:
    """A folder on a node of the cluster."""

    node: str
    folder: str

    def commit(self, step: Step, ledger: Ledger, fields: Mapping[str, Any], tries: int = 0) -> Record:
        """Record the folder as `step`, from where it is; raises what Ray does when that node is gone.

        A store that is away is asked again `tries` times: what was trained is not trained again for that.
        """
        there = NodeAffinitySchedulingStrategy(node_id=self.node, soft=False)
        plain = Ledger(ledger.store)
        replace(PAUSES, retries=tries).call(
            lambda: ray.get(_commit.options(scheduling_strategy=there).remote(step, plain, self.folder, dict(fields))),
            is_transient=is_store_unavailable,
            on_retry=lambda error, _: log.warning("%s is uploaded again: %s", step.label, explain(error)),
        )
        record = plain.find(step)
        assert record is not None, f"{step.path} was recorded a moment ago"
        return record


@ray.remote(num_cpus=0, max_retries=0)
def _commit(step: Any, ledger: Ledger, folder: str, fields: dict[str, Any]) -> None:
    if ledger.is_staged(step):  # a try before this failed while it uploaded
        ledger.upload(step)
        return
    with ledger.writing(step, folder=Path(folder)) as draft:
        draft.commit(fields)


@contextmanager
def output_folder(ledger: Ledger, key: str, *, first: bool) -> Iterator[tuple[Path, Path]]:
    """In a worker: a folder for the results, and the one that the first worker reports (the same where the store is a folder)."""
    with TemporaryDirectory(prefix="lmmcl-out-") as folder:
        if ledger.is_local or not first:
            yield Path(folder), Path(folder)
            return
        output = ledger.node.make_temp_dir(f"lmmcl-{key}-left-")
        remote = RemoteOutput(ray.get_runtime_context().get_node_id(), str(output))
        Path(folder, OUTPUT).write_text(json.dumps(asdict(remote)), encoding="utf-8")
        try:
            yield output, Path(folder)
        except BaseException:
            shutil.rmtree(output, ignore_errors=True)  # nothing depends on it any more
            raise


def read_remote_output(reported: Path) -> RemoteOutput | None:
    """Where the results are, if `reported` only says so."""
    note = reported / OUTPUT
    return RemoteOutput(**json.loads(note.read_text(encoding="utf-8"))) if note.is_file() else None


def is_lost(error: BaseException) -> bool:
    """Whether an error of `RemoteOutput.commit` says that the folder, or its node, is there no more."""
    return classify_error(error) is RetryPolicy.UNLIMITED or isinstance(root_of(error), FileNotFoundError)
