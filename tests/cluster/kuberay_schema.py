"""What KubeRay's and Kubernetes' resources may hold, as far as ours use them (a field that is not here is a typo); and ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MANIFESTS = sorted((Path(__file__).parents[2] / "cluster" / "kuberay").glob("*.yaml"))


def resources() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in MANIFESTS:
        for resource in yaml.safe_load_all(path.read_text()):
            yield f"{path.name}:{resource['kind']}/{resource['metadata']['name']}", resource


RESOURCES = dict(resources())
"""What ships, by `file:kind/name`."""


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


def obj(required: str = "", **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def many(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


TEXT = {"type": "string", "minLength": 1}
COUNT = {"type": "integer", "minimum": 0}
FLAG = {"type": "boolean"}
NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
LABELS = {"type": "object", "additionalProperties": TEXT}
CPU = {"type": "string", "pattern": r"^(\d+|\d+m)$"}
MEMORY = {"type": "string", "pattern": r"^\d+(Mi|Gi|Ti)$"}
AMOUNTS = obj("cpu memory", **{"cpu": CPU, "memory": MEMORY, "nvidia.com/gpu": {"type": "string", "pattern": r"^\d+$"}})
PORT = obj("name containerPort", name=NAME, containerPort={"type": "integer", "minimum": 1, "maximum": 65535})
VARIABLE = obj(
    "name", name=TEXT, value=TEXT, valueFrom=obj("secretKeyRef", secretKeyRef=obj("name key", name=NAME, key=TEXT))
)
PROBE = obj(
    exec=obj("command", command=many(TEXT)),
    httpGet=obj("path port", path={"type": "string", "pattern": "^/"}, port=TEXT),
    periodSeconds=COUNT,
)
CONTAINER = obj(
    "name image resources",
    name=NAME,
    image={"type": "string", "pattern": r"^\S+:\S+$"},
    command=many(TEXT),
    args=many(TEXT),
    ports=many(PORT),
    env=many(VARIABLE),
    readinessProbe=PROBE,
    volumeMounts=many(obj("name mountPath", name=NAME, mountPath={"type": "string", "pattern": "^/"})),
    resources=obj("requests limits", requests=AMOUNTS, limits=AMOUNTS),
)
TOLERATION = obj(
    "key operator",
    key=TEXT,
    operator={"enum": ["Exists", "Equal"]},
    value=TEXT,
    effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
)
VOLUME = obj(
    "name",
    name=NAME,
    emptyDir=obj(medium={"const": "Memory"}, sizeLimit=MEMORY),
    persistentVolumeClaim=obj("claimName", claimName=NAME),
)
POD = obj(
    "spec",
    metadata=obj("labels", labels=LABELS),
    spec=obj(
        "containers",
        serviceAccountName=NAME,
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
        priorityClassName=NAME,
        terminationGracePeriodSeconds=COUNT,
        nodeSelector=LABELS,
        tolerations=many(TOLERATION),
        volumes=many(VOLUME),
        containers=many(CONTAINER),
    ),
)
RAY_PARAMS = {"type": "object", "additionalProperties": TEXT}  # KubeRay takes text alone: num-cpus is "0", not 0
RAY_CLUSTER = obj(
    "rayVersion headGroupSpec workerGroupSpecs",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=obj("mode", mode={"enum": ["disabled", "token"]}),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=obj(
        version={"enum": ["v1", "v2"]},
        idleTimeoutSeconds=COUNT,
        upscalingMode={"enum": ["Default", "Conservative", "Aggressive"]},
    ),
    headGroupSpec=obj("rayStartParams template", rayStartParams=RAY_PARAMS, template=POD),
    workerGroupSpecs=many(
        obj(
            "groupName minReplicas maxReplicas template",
            groupName=NAME,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            rayStartParams=RAY_PARAMS,
            template=POD,
        )
    ),
)
RAY_JOB = obj(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]},
    backoffLimit=COUNT,
    shutdownAfterJobFinishes=FLAG,
    ttlSecondsAfterFinished=COUNT,
    rayClusterSpec=RAY_CLUSTER,
)
DEPLOYMENT = obj(
    "selector template",
    replicas=COUNT,
    strategy=obj("type", type={"enum": ["Recreate", "RollingUpdate"]}),
    selector=obj("matchLabels", matchLabels=LABELS),
    template=POD,
)
SERVICE = obj(
    "selector ports",
    selector=LABELS,
    ports=many(obj("name port targetPort", name=NAME, port=COUNT, targetPort=TEXT)),
)
CLAIM = obj(
    "accessModes resources",
    accessModes=many({"enum": ["ReadWriteOnce", "ReadWriteMany"]}),
    resources=obj("requests", requests=obj("storage", storage=MEMORY)),
)
SPECS = {
    ("ray.io/v1", "RayCluster"): RAY_CLUSTER,
    ("ray.io/v1", "RayJob"): RAY_JOB,
    ("apps/v1", "Deployment"): DEPLOYMENT,
    ("v1", "Service"): SERVICE,
    ("v1", "PersistentVolumeClaim"): CLAIM,
}
HEAD = {"apiVersion": TEXT, "kind": TEXT, "metadata": obj("name", name=NAME, labels=LABELS, annotations=LABELS)}
PRIORITY = obj(
    "metadata value",
    **HEAD,
    value={"type": "integer"},
    preemptionPolicy={"enum": ["Never", "PreemptLowerPriority"]},
    description=TEXT,
)


WITHOUT_SPEC = {("scheduling.k8s.io/v1", "PriorityClass"): PRIORITY, ("v1", "ServiceAccount"): obj("metadata", **HEAD)}


def schema_of(resource: dict[str, Any]) -> dict[str, Any]:
    """The schema of a resource; KeyError for a kind that is none of ours."""
    kind = (resource["apiVersion"], resource["kind"])
    return WITHOUT_SPEC[kind] if kind in WITHOUT_SPEC else obj("metadata spec", **HEAD, spec=SPECS[kind])
