"""What ships for clusters is well formed, says what idling costs and what to edit, and names things that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kuberay_schema import MANIFESTS, RESOURCES

from lmmcl.config.cluster import Cluster, load_cluster
from lmmcl.jobs.submit import STOP_SECONDS
from lmmcl.runner.ray_backend.tune import SAVE_SECONDS

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCH = sorted((CLUSTER / "launch").glob("*.yaml"))
OTHERS = [CLUSTER / "Containerfile", CLUSTER / "slurm.sh"]
IMAGE = "your-registry/lmmcl:latest"


@pytest.mark.parametrize("path", [*sorted(CLUSTER.glob("*.yaml")), *LAUNCH, *MANIFESTS, *OTHERS], ids=lambda p: p.name)
def test_a_file_begins_with_what_it_is_costs_to_idle_and_which_lines_to_edit(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#!")]
    header = " ".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert re.search(r"\bidles?\b", header, re.IGNORECASE) and re.search("cost", header, re.IGNORECASE), header
    assert re.search("edit", header, re.IGNORECASE), header


def test_there_is_one_for_each_place() -> None:
    assert {path.stem for path in CLUSTER.glob("*.yaml")} >= {"local", "gpu", "gpu8", "deepspeed_z3", "autoscaling"}
    assert {path.stem for path in LAUNCH} == {"aws", "gcp"}
    assert {path.stem for path in MANIFESTS} == {"raycluster", "rayjob", "mlflow"}


def checked(config: dict[str, Any]) -> dict[str, Any]:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(config)
    validate_config(prepared)
    return prepared


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_rays_launcher_takes_it_and_workers_are_spot_from_none(path: Path) -> None:
    config = checked(yaml.safe_load(path.read_text()))
    types = config["available_node_types"]
    head, worker = types[config["head_node_type"]], types["gpu_spot"]
    assert head["resources"] == {"CPU": 0, "head": 1}
    assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
    assert worker["resources"]["GPU"] >= 1
    assert "spot" in str(worker["node_config"]).lower() and "spot" not in str(head["node_config"]).lower()
    assert config["provider"]["cache_stopped_nodes"] is False, "a stopped node's disk costs while the cluster idles"
    started = "\n".join(config["head_start_ray_commands"])
    assert "--autoscaling-config" in started and "postgresql+psycopg:///mlflow?host=" in started


def test_amazon_takes_the_nodes_that_it_is_asked_for() -> None:
    botocore = pytest.importorskip("botocore.session", reason="comes with the extra s3")
    from botocore.validate import ParamValidator

    asked = botocore.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, node in yaml.safe_load((CLUSTER / "launch" / "aws.yaml").read_text())["available_node_types"].items():
        report = ParamValidator().validate({**node["node_config"], "MinCount": 1, "MaxCount": 1}, asked)
        assert not report.has_errors(), f"{name}: {report.generate_report()}"


def test_google_is_asked_for_spot_nodes_that_leave_no_disk_behind() -> None:
    types = yaml.safe_load((CLUSTER / "launch" / "gcp.yaml").read_text())["available_node_types"]
    scheduling = types["gpu_spot"]["node_config"]["scheduling"]
    assert scheduling["provisioningModel"] == "SPOT" and scheduling["instanceTerminationAction"] == "DELETE"
    assert all(disk["autoDelete"] for node in types.values() for disk in node["node_config"]["disks"])


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_a_launched_cluster_wants_a_token_and_opens_nothing_to_other_machines(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    assert config["file_mounts"] == {"~/.ray/auth_token": "~/.ray/auth_token"}
    commands = [*config["head_start_ray_commands"], *config["worker_start_ray_commands"]]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2 and all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    [server] = [command for command in commands if "mlflow server" in command]
    assert "--host 127.0.0.1 --port 5000" in server
    for command in [*commands, *config["head_setup_commands"]]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("path", [*LAUNCH, *MANIFESTS, *OTHERS, *CLUSTER.glob("*.yaml")], ids=lambda path: path.name)
def test_no_secret_is_written_down(path: Path) -> None:
    assert not re.search(
        r"://[^/\s]*:[^/\s]*@|PASSWORD '|(?i:password|token|secret)[\"']?[:=] *[\"']?\w{8}", path.read_text()
    )


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_the_validation_would_see_a_typo(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    config["idle_timeout_minuts"] = config.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        checked(config)


def test_what_files_name_of_each_other_is_there() -> None:
    cluster = load_cluster(CLUSTER / "autoscaling.yaml")
    assert cluster.driver.resources == {"head": 0.001}, "the launchers' heads have `head`"
    mlflow = [found for name, found in RESOURCES.items() if name == "mlflow.yaml:Service/mlflow"]
    assert cluster.tracking == f"http://mlflow:{mlflow[0]['spec']['ports'][0]['port']}"
    for path in [*LAUNCH, *MANIFESTS]:
        assert IMAGE in path.read_text()
    image = (CLUSTER / "Containerfile").read_text()
    [folder] = re.findall(r"^WORKDIR (\S+)$", image, re.MULTILINE)
    [job] = [found for found in RESOURCES.values() if found["kind"] == "RayJob"]
    files = [word for word in job["spec"]["entrypoint"].split() if word.endswith(".yaml")]
    assert len(files) == 2
    for word in files:
        assert (ROOT / Path(word).relative_to(folder)).is_file(), word
    copied = re.findall(r"^COPY (.+) \S+$", image, re.MULTILINE)
    assert len(copied) >= 3
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_the_ray_version_of_the_manifests_is_one_that_the_package_allows() -> None:
    import tomllib

    from packaging.requirements import Requirement

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [ray] = [Requirement(each) for each in wanted if each.startswith("ray[")]
    [image] = re.findall(r'"ray\[default,tune,train\]==([\d.]+)"', (CLUSTER / "Containerfile").read_text())
    assert image in ray.specifier
    for found in RESOURCES.values():
        if found["kind"].startswith("Ray"):
            assert found["spec"].get("rayClusterSpec", found["spec"])["rayVersion"] == image


def test_the_slurm_script_is_bash_and_its_cluster_file_is_one_of_ours(tmp_path: Path) -> None:
    script = (CLUSTER / "slurm.sh").read_text()
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=True)
    [inside] = re.findall(r"<<'YAML'\n(.*?)\nYAML", script, re.DOTALL)
    (tmp_path / "slurm.yaml").write_text(inside)
    assert load_cluster(tmp_path / "slurm.yaml").ray.address == "auto"
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(CLUSTER / "slurm.sh")], check=True)


def test_the_container_file_keeps_to_what_a_linter_asks() -> None:
    text = re.sub(r"\\\n", " ", (CLUSTER / "Containerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    said = [line.split(maxsplit=1) for line in lines]
    assert {word for word, _ in said} <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    assert re.fullmatch(r"FROM \S+:(?!latest)\S+", lines[0])
    runs = [rest for word, rest in said if word == "RUN"]
    for command in runs:
        subprocess.run(["bash", "-n", "-c", command], check=True)
        assert "apt-get install" not in command or re.search(
            r"apt-get update.*--no-install-recommends.*rm -rf /var/lib/apt", command
        )
        assert "pip install" not in command or "--no-cache-dir" in command
    assert "--uid 1000 ray" in runs[0] and [rest for word, rest in said if word == "USER"] == ["1000"]
    if shutil.which("hadolint"):
        subprocess.run(["hadolint", str(CLUSTER / "Containerfile")], check=True)


def test_the_image_has_what_launchers_and_gpus_need() -> None:
    text = (CLUSTER / "Containerfile").read_text()
    for needed in ("rsync", "sudo", "wget", "postgresql", "boto3", "google-api-python-client"):
        assert re.search(rf"[ \n]{needed}[ \n]", text), needed
    variables = dict(re.findall(r"(\w+)=(\S+)", text[text.index("ENV ") :]))
    assert variables["HOME"] == "/home/ray", "the launcher mounts ~ below the image's HOME, and knows no other"
    assert variables["NVIDIA_VISIBLE_DEVICES"] == "all", "or a container shows no GPU where the image is not NVIDIA's"
    assert int(variables["RAY_JOB_STOP_WAIT_TIME_S"]) == STOP_SECONDS > SAVE_SECONDS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{strategy: deepspeed}", "needs workers"),
        ("{strategy: fsdp, workers: 2}", "set gpus_per_worker: 1, or strategy: ddp"),
        ("{offload: optimizer, workers: 1}", "needs strategy: deepspeed"),
        ("{strategy: deepspeed, workers: 1, offload: parameters}", "needs zero_stage: 3"),
        ("{liger: true}", "GPUs only"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Cluster.model_validate({"training": yaml.safe_load(text)})
