"""What ships for clusters is well formed, says what idling costs and what to edit, and names things that exist."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from kuberay_schema import schema_of

from lmmcl.spec.cluster import Cluster, load_cluster

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCH = sorted((CLUSTER / "launch").glob("*.yaml"))
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
OTHERS = [CLUSTER / "Containerfile", CLUSTER / "slurm.sh"]
IMAGE = "your-registry/lmmcl:latest"


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in KUBERAY:
        for resource in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}:{resource['kind']}/{resource['metadata']['name']}", resource


RESOURCES = dict(resources())


def pods(value: Any) -> Iterator[dict[str, Any]]:
    """All pod specifications below `value`."""
    if isinstance(value, dict):
        if "containers" in value:
            yield value
        for below in value.values():
            yield from pods(below)
    elif isinstance(value, list):
        for below in value:
            yield from pods(below)


@pytest.mark.parametrize("path", [*sorted(CLUSTER.glob("*.yaml")), *LAUNCH, *KUBERAY, *OTHERS], ids=lambda p: p.name)
def test_a_file_begins_with_what_it_is_costs_to_idle_and_which_lines_to_edit(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#!")]
    header = " ".join(line for line in lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))])
    assert re.search(r"\bidles?\b", header, re.IGNORECASE) and re.search("cost", header, re.IGNORECASE), header
    assert re.search("edit", header, re.IGNORECASE), header


def test_there_is_one_for_each_place() -> None:
    assert {path.stem for path in CLUSTER.glob("*.yaml")} >= {"local", "gpu", "gpu8", "deepspeed_z3", "autoscaling"}
    assert {path.stem for path in LAUNCH} == {"aws", "gcp"}
    assert {path.stem for path in KUBERAY} == {"raycluster", "rayjob", "mlflow"}


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
    started = "\n".join(config["head_start_ray_commands"])
    assert "--autoscaling-config" in started and "postgresql://" in started and "--allowed-hosts" in started


@pytest.mark.parametrize("path", LAUNCH, ids=lambda path: path.stem)
def test_the_validation_would_see_a_typo(path: Path) -> None:
    config = yaml.safe_load(path.read_text())
    config["idle_timeout_minuts"] = config.pop("idle_timeout_minutes")
    with pytest.raises(Exception, match="idle_timeout_minuts"):
        checked(config)


@pytest.mark.parametrize("name", RESOURCES)
def test_a_resource_holds_only_fields_that_there_are(name: str) -> None:
    jsonschema.validate(RESOURCES[name], schema_of(RESOURCES[name]))


def test_the_schema_would_see_a_typo_and_a_number_where_text_is_needed() -> None:
    [cluster] = [found for name, found in RESOURCES.items() if "RayCluster/" in name]
    for change in ("minReplica", "rayStartParams"):
        broken = copy.deepcopy(cluster)
        group = broken["spec"]["workerGroupSpecs"][0]
        group[change] = 0 if change == "minReplica" else {"num-cpus": 8}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema_of(broken))


@pytest.mark.parametrize("name", RESOURCES)
def test_a_pod_mounts_volumes_that_it_has_and_asks_for_what_it_is_limited_to(name: str) -> None:
    for pod in pods(RESOURCES[name]):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes
            amounts = container["resources"]
            assert amounts["requests"]["memory"] == amounts["limits"]["memory"]
            assert amounts["requests"].get("nvidia.com/gpu") == amounts["limits"].get("nvidia.com/gpu")


def test_services_select_pods_that_are_deployed_and_ports_that_these_have() -> None:
    deployed = {name.split("/")[1]: found["spec"] for name, found in RESOURCES.items() if found["kind"] == "Deployment"}
    for name, service in RESOURCES.items():
        if service["kind"] != "Service":
            continue
        spec = deployed[service["spec"]["selector"]["app"]]
        assert (
            spec["selector"]["matchLabels"] == spec["template"]["metadata"]["labels"] == service["spec"]["selector"]
        ), name
        ports = {port["name"] for pod in pods(spec) for container in pod["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_ray_clusters_scale_from_none_on_spot_nodes_with_their_head_elsewhere() -> None:
    specs = [
        found["spec"].get("rayClusterSpec", found["spec"])
        for found in RESOURCES.values()
        if found["kind"].startswith("Ray")
    ]
    assert len(specs) == 2
    for spec in specs:
        assert spec["enableInTreeAutoscaling"]
        head, [workers] = spec["headGroupSpec"], spec["workerGroupSpecs"]
        assert yaml.safe_load(yaml.safe_load(head["rayStartParams"]["resources"])) == {"head": 1}
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert "tolerations" not in head["template"]["spec"]
        assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
        assert {each["key"] for each in workers["template"]["spec"]["tolerations"]} >= {"spot", "nvidia.com/gpu"}


def test_what_files_name_of_each_other_is_there() -> None:
    cluster = load_cluster(CLUSTER / "autoscaling.yaml")
    assert cluster.driver.resources == {"head": 0.001}, "the launchers' heads have `head`"
    mlflow = [found for name, found in RESOURCES.items() if name == "mlflow.yaml:Service/mlflow"]
    assert cluster.tracking == f"http://mlflow:{mlflow[0]['spec']['ports'][0]['port']}"
    for path in [*LAUNCH, *KUBERAY]:
        assert IMAGE in path.read_text()
    [job] = [found for found in RESOURCES.values() if found["kind"] == "RayJob"]
    for word in job["spec"]["entrypoint"].split():
        if word.endswith(".yaml"):
            assert (ROOT / word).is_file(), word
    copied = re.findall(r"^COPY (.+) \S+$", (CLUSTER / "Containerfile").read_text(), re.MULTILINE)
    assert len(copied) >= 3
    for name in " ".join(copied).split():
        assert (ROOT / name).exists(), name


def test_the_ray_version_of_the_manifests_is_one_that_the_package_allows() -> None:
    import tomllib

    from packaging.requirements import Requirement

    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    [ray] = [Requirement(each) for each in wanted if each.startswith("ray[")]
    for found in RESOURCES.values():
        if found["kind"].startswith("Ray"):
            assert found["spec"].get("rayClusterSpec", found["spec"])["rayVersion"] in ray.specifier


def test_the_slurm_script_is_bash_and_its_cluster_file_is_one_of_ours(tmp_path: Path) -> None:
    script = (CLUSTER / "slurm.sh").read_text()
    subprocess.run(["bash", "-n", str(CLUSTER / "slurm.sh")], check=True)
    [inside] = re.findall(r"<<'YAML'\n(.*?)\nYAML", script, re.DOTALL)
    (tmp_path / "slurm.yaml").write_text(inside)
    assert load_cluster(tmp_path / "slurm.yaml").ray.address == "auto"
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", str(CLUSTER / "slurm.sh")], check=True)


def test_the_container_file_runs_as_a_user_and_says_which_base() -> None:
    lines = [line for line in (CLUSTER / "Containerfile").read_text().splitlines() if line and not line.startswith("#")]
    words = {line.split()[0] for line in lines if re.match(r"[A-Z]+ ", line)}
    assert words <= {"FROM", "RUN", "WORKDIR", "COPY", "USER", "ENV", "CMD"}
    assert lines[0].startswith("FROM ") and ":" in lines[0] and ":latest" not in lines[0]
    assert [line for line in lines if line.startswith("USER ")] == ["USER ray"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{strategy: deepspeed}", "needs workers"),
        ("{strategy: fsdp, workers: 2}", "the Trainer would do ddp"),
        ("{offload: optimizer, workers: 1}", "needs strategy: deepspeed"),
        ("{strategy: deepspeed, workers: 1, offload: parameters}", "needs zero_stage: 3"),
        ("{liger: true}", "GPUs only"),
    ],
)
def test_settings_that_cannot_go_together_are_refused(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Cluster.model_validate({"training": yaml.safe_load(text)})
