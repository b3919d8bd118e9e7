"""A sweep as a job of a Ray cluster: checked here first, sent with the files it names, its log followed.

The same by hand: `ray job submit --address … --working-dir . -- lmmcl run SWEEP --cluster FILE --store URI`.
"""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.errors import UserError
from lmmcl.runner.estimate import check_memory
from lmmcl.spec.cluster import Cluster
from lmmcl.spec.door import read_yaml
from lmmcl.spec.steps import Finetune
from lmmcl.spec.sweep import Sweep

EXCLUDED = [".git", ".venv", "lmmcl-store", "lmmcl-reports", "mlruns", "mlflow.db", "__pycache__", ".*_cache", "tests"]
"""Of the folder that is sent, what no sweep needs."""
EXIT_CODES = {"SUCCEEDED": 0, "STOPPED": 130}


@dataclass(frozen=True)
class Submission:
    """What is sent: the command line of the job, its environment, and what `ray job list` shows of it."""

    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    submission_id: str


def make_submission(
    sweep: Sweep,
    cluster: Cluster,
    *,
    working_dir: Path,
    cluster_file: Path | None,
    store: str | None,
    set_: Sequence[str] = (),
    mlflow: str | None = None,
    environment: Sequence[str] = (),
    runtime_env: Path | None = None,
) -> Submission:
    """The job that runs `sweep`.

    `environment` holds NAME=VALUE pairs, `runtime_env` a YAML file with more of Ray's runtime environment (pip, say).
    Raises UserError for files outside `working_dir`, a store that would go with the job, or a stage that fits no GPU.
    """
    corners = (step for space in sweep.spaces for corner in space.corners for step in corner.steps().values())
    for step in (*sweep.steps.values(), *corners):
        if isinstance(step, Finetune):
            check_memory(step, cluster)
    words = ["lmmcl", "run", _inside(Path(sweep.file), working_dir)]
    if cluster_file:
        words += ["--cluster", _inside(cluster_file, working_dir)]
    words += ["--store", _lasting(store or cluster.store)]
    for pair in set_:
        words += ["--set", pair]
    if mlflow:
        words += ["--mlflow", mlflow]
    more = read_yaml(runtime_env) if runtime_env else {}
    variables = {**more.get("env_vars", {}), **dict(_pair(pair) for pair in environment)}
    return Submission(
        entrypoint=shlex.join(words),
        runtime_env={"working_dir": str(working_dir), "excludes": EXCLUDED, **more, "env_vars": variables},
        metadata={"lmmcl.sweep": sweep.name, "lmmcl.file": words[2], "lmmcl.trials": str(len(sweep.trials))},
        submission_id=f"lmmcl-{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}",
    )


def _inside(path: Path, working_dir: Path) -> str:
    try:
        return path.resolve().relative_to(working_dir.resolve()).as_posix()
    except ValueError:
        raise UserError(
            f"is not in {working_dir}, the folder that is sent; submit from a folder above it, or name one with --working-dir",
            file=str(path),
        ) from None


def _lasting(store: str | None) -> str:
    if store is None or not ("://" in store or store.startswith("/")):
        raise UserError(
            "a job's own folder goes when it ends: name a store that all nodes can write with --store or in the cluster "
            "file, a URI (s3://bucket/folder) or an absolute path",
            place="store",
        )
    return store


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"a variable is NAME=VALUE, not {text!r}", place="--env")
    return name, value


def submit(submission: Submission, address: str, *, follow: bool, tell: Callable[[str], None]) -> int:
    """Send a job and, if `follow`, pass on its log to its end. Returns an exit code: 0 done, 1 failed, 130 stopped.

    Raises UserError when there is no such cluster, or it wants another token.
    """
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=submission.entrypoint,
            runtime_env=submission.runtime_env,
            metadata=submission.metadata,
            submission_id=submission.submission_id,
        )
    except AuthenticationError as error:
        raise UserError(
            f"wants a token ({error}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH)",
            file=address,
        ) from error
    except (ConnectionError, RuntimeError) as error:
        raise UserError(f"no job can be sent there: {error}", file=address) from error
    tell(f"job {job}: {submission.entrypoint}")
    tell(f"stop it with: ray job stop --address {address} {job}; submit it again to go on")
    if not follow:
        return 0
    try:
        asyncio.run(_follow(client, job, tell))
    except KeyboardInterrupt:
        tell(f"the job goes on; its log: ray job logs --follow --address {address} {job}")
        return 130
    return EXIT_CODES.get(client.get_job_status(job).value, 1)


async def _follow(client: Any, job: str, tell: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        tell(lines.rstrip("\n"))
