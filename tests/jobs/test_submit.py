"""A sweep as a job: what is sent, what is refused before it is sent, and how it ended. Jobs that run: test_jobs.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from aiohttp import ClientConnectionError
from made import SWEEP, write_sweep
from ray_head import free_ports

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.config.sweep import load_sweep
from lmmcl.errors import UserError
from lmmcl.jobs.submit import STOP_SECONDS, Submission, make_submission, submit
from lmmcl.runner.ray_backend.start import ray_address


def made(folder: Path, text: str = SWEEP, **more: object) -> Submission:
    sweep = load_sweep(write_sweep(folder, text))
    given = {"working_dir": folder, "cluster_file": None, "store": "s3://bucket/lmmcl", "mlflow": "off", **more}
    return make_submission(sweep, Cluster(), **given)  # type: ignore[arg-type]


def test_a_job_is_the_command_that_a_person_would_type(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text("ray: {address: auto}\n")
    job = made(tmp_path, cluster_file=tmp_path / "node.yaml", set_=["training.epochs=2"], environment=["A=b c"])
    assert job.entrypoint == (
        "lmmcl run small.yaml --cluster node.yaml --store s3://bucket/lmmcl --set training.epochs=2 --mlflow off"
    )
    assert job.runtime_env["working_dir"] == str(tmp_path)
    assert job.runtime_env["env_vars"] == {"A": "b c", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    assert "lmmcl-store" in job.runtime_env["excludes"]
    assert job.metadata["lmmcl.sweep"] == "small"
    assert job.report == f"lmmcl report {tmp_path}/small.yaml --set training.epochs=2 --store s3://bucket/lmmcl"


def test_more_of_the_runtime_environment_comes_from_a_file(tmp_path: Path) -> None:
    more = tmp_path / "env.yaml"
    more.write_text(yaml.safe_dump({"pip": ["mine"], "env_vars": {"A": "file", "RAY_JOB_STOP_WAIT_TIME_S": "5"}}))
    env = made(tmp_path, runtime_env=more, environment=["A=line"]).runtime_env
    assert env["pip"] == ["mine"]
    assert env["env_vars"] == {"A": "line", "RAY_JOB_STOP_WAIT_TIME_S": "5"}
    more.write_text("env_vars: {A: 1}\n")
    with pytest.raises(UserError, match=r"env\.yaml: Ray rejected this runtime environment"):
        made(tmp_path, runtime_env=more)
    more.write_text("pips: [mine]\n")
    with pytest.raises(UserError, match=r"env\.yaml: unknown setting 'pips'; did you mean 'pip'"):
        made(tmp_path, runtime_env=more)


def test_what_would_not_reach_the_cluster_or_last_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder that is uploaded"):
        made(tmp_path, working_dir=tmp_path / "elsewhere")
    for store in (None, "lmmcl-store"):
        with pytest.raises(UserError, match="a store that all nodes can write"):
            made(tmp_path, store=store)
    with pytest.raises(UserError, match="NAME=VALUE"):
        made(tmp_path, environment=["NAME"])
    with pytest.raises(UserError, match="--mlflow http://HOST:5000"):
        made(tmp_path, mlflow=None)


OWN = f"{SWEEP}skills:\n  mine: {{train: DATA/train.jsonl, test: DATA/test.jsonl, metric: exact_match}}\n"


@pytest.fixture
def own_data(tmp_path: Path) -> Callable[[str], Path]:
    def write(folder: str) -> Path:
        (data := tmp_path / folder).mkdir(parents=True, exist_ok=True)
        said = [{"from": "human", "value": "how many ?"}, {"from": "gpt", "value": "2"}]
        for name in ("train", "test"):
            (data / f"{name}.jsonl").write_text(json.dumps({"id": "a", "conversations": said}) + "\n")
        return data

    return write


def test_data_of_a_sweep_goes_with_it_or_is_where_every_node_finds_it(
    tmp_path: Path, own_data: Callable[[str], Path]
) -> None:
    own_data("home/data"), own_data("other")
    home = tmp_path / "home"
    assert made(home, OWN.replace("DATA", "data")).shared == ()
    with pytest.raises(
        UserError, match=r"other/train\.jsonl: is not in .*, the folder that is uploaded.*by an absolute path"
    ):
        made(home, OWN.replace("DATA", "../other"))
    job = made(home, OWN.replace("DATA", f"{tmp_path}/other"), store="/shared/store")
    assert job.shared == ("/shared/store", f"{tmp_path}/other/test.jsonl", f"{tmp_path}/other/train.jsonl")
    (home / ".gitignore").write_text("data/\n")
    with pytest.raises(UserError, match=r"data/train\.jsonl: would not be uploaded .*\.gitignore"):
        made(home, OWN.replace("DATA", "data"))


def test_a_folder_that_ray_does_not_take_is_refused_with_what_makes_it_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray._private.runtime_env.packaging.GCS_STORAGE_MAX_SIZE", 3 * 2**20)
    (tmp_path / "weights.bin").write_bytes(bytes(4 * 2**20))
    with pytest.raises(
        UserError, match=r"4 MiB would be uploaded, but Ray accepts less than 3 MiB; .*weights\.bin \(4 MiB\)"
    ):
        made(tmp_path)
    (tmp_path / ".rayignore").write_text("*.bin\n")
    made(tmp_path)


def test_an_address_is_asked_as_it_is_given_and_told_where_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, other = free_ports(2)
    monkeypatch.setenv("RAY_ADDRESS", f"http://127.0.0.1:{other}")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{given}: cannot submit jobs there: .*:{given}"):
        submit(made(tmp_path), f"http://127.0.0.1:{given}", follow=True, tell=print)
    with pytest.raises(UserError, match=r"such as http://host:8265"):
        submit(made(tmp_path), "host:8265", follow=True, tell=print)


@pytest.mark.parametrize(
    ("status", "ended", "message", "code", "told"),
    [
        ("SUCCEEDED", 0, "", 0, "to see its results here: lmmcl report"),
        ("STOPPED", None, "", 130, "submit it again to resume"),
        ("FAILED", 2, "a long log", 2, "exit code 2; the reason is in its log"),
        ("FAILED", None, "no such package: mine", 1, "failed: no such package: mine"),
        ("RUNNING", None, "", 1, "The job keeps running. Its log: ray job logs"),
    ],
)
def test_how_a_job_ended_is_told_and_is_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, ended: int | None, message: str, code: int, told: str
) -> None:
    class Client:
        async def tail_job_logs(self, job: str):  # type: ignore[no-untyped-def]
            yield "a line\n\n"

        def get_job_info(self, job: str) -> SimpleNamespace:
            state = SimpleNamespace(value=status)
            return SimpleNamespace(submission_id=job, status=state, driver_exit_code=ended, message=message)

    monkeypatch.setattr("lmmcl.jobs.submit._send", lambda submission, address: (Client(), "one"))
    lines: list[str] = []
    assert submit(made(tmp_path), "http://host:8265", follow=True, tell=lines.append) == code
    assert "a line\n" in lines and told in lines[-1] and "a long log" not in lines[-1]


def test_the_log_of_a_job_is_shown_without_the_codes_of_its_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        async def tail_job_logs(self, job: str):  # type: ignore[no-untyped-def]
            yield "\x1b[33m(raylet)\x1b[0m a worker died\n\x1b[1;31mred\x1b[m \x1b[2J\n"

        def get_job_info(self, job: str) -> SimpleNamespace:
            return SimpleNamespace(submission_id=job, status=SimpleNamespace(value="SUCCEEDED"), driver_exit_code=0)

    monkeypatch.setattr("lmmcl.jobs.submit._send", lambda submission, address: (Client(), "one"))
    lines: list[str] = []
    assert submit(made(tmp_path), "http://host:8265", follow=True, tell=lines.append) == 0
    assert "(raylet) a worker died\nred \x1b[2J" in lines  # what moves the cursor stays, to be shown as text


def test_a_connection_that_breaks_says_how_to_see_the_job_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Client:
        async def tail_job_logs(self, job: str):  # type: ignore[no-untyped-def]
            yield "a line\n"
            raise ClientConnectionError("gone")

    monkeypatch.setattr("lmmcl.jobs.submit._send", lambda submission, address: (Client(), "one"))
    lines: list[str] = []
    assert submit(made(tmp_path), "http://host:8265", follow=True, tell=lines.append) == 1
    assert "gone" in lines[-1] and "ray job logs --follow --address http://host:8265 one" in lines[-1]


def test_inside_a_job_the_running_cluster_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_address(load_cluster(None)) == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_address(load_cluster(None)) == "10.0.0.1:6379"
    assert ray_address(Cluster.model_validate({"ray": {"address": "auto"}})) == "auto"


def test_secrets_go_to_the_job_by_its_environment(tmp_path: Path) -> None:
    store, mlflow = "ftp://me:NOTASECRET@host/store", "postgresql://me:NOTASECRET@host/db"
    job = made(tmp_path, store=store, mlflow=mlflow)
    assert job.entrypoint == "lmmcl run small.yaml"
    assert job.runtime_env["env_vars"] | {"LMMCL_STORE": store, "LMMCL_MLFLOW": mlflow} == job.runtime_env["env_vars"]
    assert "NOTASECRET" not in f"{job.report} {job.metadata} {job.shared} {job.entrypoint}"
