"""The manifests for Kubernetes hold what its schemas and KubeRay know, fit each other, and say who gives way to whom."""

from __future__ import annotations

import copy

import jsonschema
import pytest
import yaml
from kuberay_schema import RESOURCES, pods, schema_of


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
        assert spec["authOptions"] == {"mode": "token"}


def test_pods_on_spot_nodes_give_way_to_others_and_still_make_nodes_come() -> None:
    """A pod has priority 0 where nothing is said; for one below -10, Kubernetes' cluster autoscaler adds no node."""
    classes = {name: found for name, found in RESOURCES.items() if found["kind"] == "PriorityClass"}
    assert {name.split(":")[0] for name in classes} == {"raycluster.yaml", "rayjob.yaml"}
    first, second = classes.values()
    assert first == second and -10 <= first["value"] < 0 and first["preemptionPolicy"] == "Never"
    for name, found in RESOURCES.items():
        for pod in pods(found):
            on_spot = "nodeSelector" in pod
            assert pod.get("priorityClassName") == (first["metadata"]["name"] if on_spot else None), name


def test_pods_run_as_an_account_that_is_there() -> None:
    accounts = {found["metadata"]["name"] for found in RESOURCES.values() if found["kind"] == "ServiceAccount"}
    named = {
        pod["serviceAccountName"] for found in RESOURCES.values() for pod in pods(found) if "serviceAccountName" in pod
    }
    assert accounts == named == {"lmmcl"}


def test_kubernetes_own_schemas_take_them() -> None:
    schemas = pytest.importorskip(
        "kubernetes_validate", reason="its schemas are 100 MB: install it to hold the files to them"
    )
    for name, found in RESOURCES.items():
        plain = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod} for pod in pods(found)]
        for resource in plain if found["apiVersion"].startswith("ray.io") else [found]:
            assert schemas.validate(resource, schemas.latest_version(), strict=True), name
