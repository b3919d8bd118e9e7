"""A sweep as a job of a Ray cluster: checked here first, sent with the files it names, its log followed.

The same by hand: `ray job submit --address … --working-dir . -- lmmcl run SWEEP --cluster FILE --store URI`.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmmcl.config.cluster import Cluster
from lmmcl.config.sweep import Sweep
from lmmcl.config.validation import apply_overrides, read_yaml
from lmmcl.errors import UserError, shown, unknown
from lmmcl.jobs.package import EXCLUDED, check_package, files_of, relative_to_working_dir
from lmmcl.ledger.named_store import STORE_VARIABLE
from lmmcl.masking import has_secrets, mask
from lmmcl.planning.fits import find_infeasible, refuse
from lmmcl.private_api.ray_private import quiet_submission
from lmmcl.terminal import strip_colours
from lmmcl.tracking.database import MLFLOW_VARIABLE, default_tracking_uri
from lmmcl.tracking.destinations import destinations

STOP_SECONDS = 60
"""How long Ray waits at `ray job stop` before it kills: stages save for up to 20 seconds; left alone, Ray gives 3."""


@dataclass(frozen=True)
class Submission:
    """What is sent: the command line of the job, its environment, and what `ray job list` shows of it."""

    entrypoint: str
    runtime_env: dict[str, Any]
    metadata: dict[str, str]
    submission_id: str
    report: str
    """The command that shows, here, what the job found."""
    shared: tuple[str, ...]
    """Paths that every node must find where they are here."""


def make_submission(
    sweep: Sweep,
    cluster: Cluster,
    *,
    working_dir: Path,
    cluster_file: Path | None,
    store: str | None,
    set_: Sequence[str] = (),
    mlflow: str | None = None,
    tracking: Sequence[str] = (),
    environment: Sequence[str] = (),
    runtime_env: Path | None = None,
) -> Submission:
    """The job that runs `sweep`.

    `environment` holds NAME=VALUE pairs, `runtime_env` a YAML file with more of Ray's runtime environment (pip, say).
    Raises UserError for files that would not be sent, a store that would go with the job, no place for MLflow's records, a
    folder that is too large to send, or a stage that fits no GPU.
    """
    # what is recorded is not known here: the store may be out of reach
    refuse(find_infeasible(sweep, cluster, sweep.steps.values(), lambda step: True, of_all=False))
    lasting = _lasting(store or cluster.store)
    if destinations(cluster, mlflow, tracking, installed=False).mlflow is None:
        default_tracking_uri(lasting)  # the job would refuse it as well, but only after it was sent and started
    file = relative_to_working_dir(Path(sweep.file), working_dir)
    words = ["lmmcl", "run", file]
    if cluster_file:
        words += ["--cluster", relative_to_working_dir(cluster_file, working_dir)]
    chosen = [word for pair in set_ for word in ("--set", pair)]
    words += [*([] if has_secrets(lasting) else ["--store", lasting]), *chosen]
    if mlflow and not has_secrets(mlflow):
        words += ["--mlflow", mlflow]
    words += [word for name in tracking for word in ("--tracking", name)]
    # An entry point is shown to everybody who lists the cluster's jobs; secrets go by the environment.
    secret = {STORE_VARIABLE: lasting} if has_secrets(lasting) else {}
    secret |= {MLFLOW_VARIABLE: mlflow} if mlflow and has_secrets(mlflow) else {}
    env = _environment(runtime_env, environment, working_dir, secret)
    return Submission(
        entrypoint=shlex.join(words),
        runtime_env=env,
        metadata={"lmmcl.sweep": sweep.name, "lmmcl.file": file, "lmmcl.trials": str(len(sweep.trials))},
        submission_id=f"lmmcl-{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}",
        report=shlex.join(["lmmcl", "report", sweep.file, *chosen, "--store", mask(lasting)]),
        shared=_shared(sweep, set_, cluster_file, lasting, env),
    )


def _environment(
    file: Path | None, pairs: Sequence[str], working_dir: Path, more_variables: Mapping[str, str]
) -> dict[str, Any]:
    """Ray's runtime environment of the job; raises UserError for one that Ray would not take."""
    from ray.runtime_env import RuntimeEnv

    more = read_yaml(file) if file else {}
    for key in more:
        if key not in RuntimeEnv.known_fields:  # Ray would take it, and do nothing with it
            raise UserError(unknown("setting", key, RuntimeEnv.known_fields), file=str(file))
    variables = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **(more.get("env_vars") or {})}
    variables |= {**dict(_pair(pair) for pair in pairs), **more_variables}
    runtime_env = {"working_dir": str(working_dir), "excludes": EXCLUDED, **more, "env_vars": variables}
    try:
        RuntimeEnv(**runtime_env)
    except (TypeError, ValueError) as error:
        raise UserError(f"Ray rejected this runtime environment: {error}", file=str(file or working_dir)) from error
    return runtime_env


def _shared(
    sweep: Sweep, set_: Sequence[str], cluster_file: Path | None, store: str, env: dict[str, Any]
) -> tuple[str, ...]:
    """The absolute paths that the job uses; everything else that it names is checked to be sent with it."""
    file = Path(sweep.file)
    data = list(files_of(apply_overrides(read_yaml(file), set_), file.parent))
    if "://" not in env["working_dir"]:  # a URI is fetched by the nodes themselves
        needed = [file, *([cluster_file] if cluster_file else []), *(path for path, absolute in data if not absolute)]
        check_package(Path(env["working_dir"]), env["excludes"] or [], needed)
    return tuple(sorted({*(str(path) for path, absolute in data if absolute), *([] if "://" in store else [store])}))


def _lasting(store: str | None) -> str:
    if store is None or not ("://" in store or store.startswith("/")):
        raise UserError(
            "a job's own folder is deleted when it ends: name a store that all nodes can write with --store or in the cluster "
            "file, a URI (s3://bucket/folder) or an absolute path",
            place="store",
        )
    return store


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UserError(f"a variable has the form NAME=VALUE, not {shown(text)}", place="--env")
    return name, value


def submit(submission: Submission, address: str, *, follow: bool, tell: Callable[[str], None]) -> int:
    """Send a job and, if `follow`, pass on its log to its end.

    Returns an exit code: that of the job, 130 if it was stopped or is no longer followed, 1 if its log broke off.
    Raises UserError when there is no such cluster, it wants another token, or it does not take the job.
    """
    from aiohttp import ClientError

    tell(f"sending {submission.runtime_env['working_dir']} to {address}")
    client, job = _send(submission, address)
    tell(f"job {job}: {submission.entrypoint}")
    if submission.shared:
        tell(f"must be readable from every node: {', '.join(submission.shared)}")
    tell(f"stop it with: ray job stop --address {address} {job}; submit it again to resume")
    goes_on = f"The job keeps running. Its log: ray job logs --follow --address {address} {job}"
    if not follow:
        return 0
    try:
        asyncio.run(_follow(client, job, tell))
        return _ended(client.get_job_info(job), submission, goes_on, tell)
    except KeyboardInterrupt:
        tell(goes_on)
        return 130
    except (
        ClientError,
        RuntimeError,
        OSError,
    ) as error:  # what aiohttp, Ray and requests say of a connection that breaks
        tell(f"connection lost ({error}); last known state: {goes_on}")
        return 1


def _send(submission: Submission, address: str) -> tuple[Any, str]:
    """The client, and the name of the job that was taken."""
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    quiet_submission()
    if "://" not in address:
        raise UserError(
            f"an address is that of Ray's dashboard, such as http://{address or 'HOST:8265'}", place="--address"
        )
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # Ray would take RAY_ADDRESS instead of the address that it is given
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
            f"requires a token ({error.message.partition(chr(10))[0]}); set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN "
            "(or RAY_AUTH_TOKEN_PATH)",
            file=address,
        ) from error
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"cannot submit jobs there: {error}", file=address) from error
    return client, job


def _ended(info: Any, submission: Submission, goes_on: str, tell: Callable[[str], None]) -> int:
    """Tell how a job ended; returns its exit code."""
    job, status, ended = info.submission_id, info.status.value, info.driver_exit_code
    if status == "SUCCEEDED":
        tell(f"job {job} is done; to see its results here: {submission.report}")
        return 0
    if status == "STOPPED":
        tell(f"job {job} was stopped; submit it again to resume")
        return 130
    if status == "FAILED":
        # without an exit code it never began (its environment could not be made, say), and its log tells nothing
        tell(f"job {job} failed: {info.message if ended is None else f'exit code {ended}; the reason is in its log'}")
        return ended or 1
    tell(f"the log ended, {goes_on}")
    return 1


async def _follow(client: Any, job: str, tell: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        tell(strip_colours(lines.removesuffix("\n")))  # Ray colours what it says there
