"""A KubeRay RayJob file: the fields of its own parts, and the doors.

The fields are those of KubeRay's API reference, v1.6. What is below a pod template is Kubernetes'
own; `kubectl apply --dry-run=server` checks that on a cluster.
"""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator
from typing import Any

from cluster.connection import FAULT_DETECTION
from job.errors import nearest

JOB = (
    *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate"),
    *("metadata", "clusterSelector", "submitterConfig", "managedBy", "deletionStrategy"),
    *("entrypoint", "runtimeEnvYAML", "jobId", "submissionMode", "entrypointResources"),
    *("entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished"),
    *("preRunningDeadlineSeconds", "shutdownAfterJobFinishes", "suspend"),
)
CLUSTER = (
    *("upgradeStrategy", "authOptions", "suspend", "managedBy", "autoscalerOptions"),
    *("headServiceAnnotations", "enableInTreeAutoscaling", "gcsFaultToleranceOptions"),
    *("headGroupSpec", "rayVersion", "workerGroupSpecs"),
)
GROUP = ("template", "resources", "labels", "rayStartParams")
HEAD = (*GROUP, "headService", "enableIngress", "serviceType")
WORKERS = (
    *(*GROUP, "suspend", "groupName", "replicas", "minReplicas", "maxReplicas"),
    *("idleTimeoutSeconds", "scaleStrategy", "numOfHosts"),
)
MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")

Problem = tuple[str, Any, str]


def rayjob_problems(documents: list[dict[str, Any]]) -> Iterator[Problem]:
    """Problems of a RayJob and what comes with it, as (key, value, text)."""
    jobs = [d for d in documents if d.get("kind") == "RayJob"]
    if len(jobs) != 1 or jobs[0].get("apiVersion") != "ray.io/v1":
        yield "kind", None, "one RayJob of apiVersion ray.io/v1 is needed"
        return
    try:
        yield from _job(jobs[0], documents)
    except (AttributeError, KeyError, TypeError) as error:
        # Deep inside, where a section is missing or of another kind.
        yield "spec", None, f"is not of a RayJob's form: {type(error).__name__} {error}"


def _job(job: dict[str, Any], documents: list[dict[str, Any]]) -> Iterator[Problem]:
    if not (job.get("metadata") or {}).get("name"):
        yield "metadata.name", None, "is missing"
    spec = job["spec"]
    cluster = spec["rayClusterSpec"]
    yield from _fields("spec", spec, JOB)
    yield from _fields("spec.rayClusterSpec", cluster, CLUSTER)
    mode = spec.get("submissionMode", MODES[0])
    if mode not in MODES:
        yield "spec.submissionMode", mode, f"must be one of {', '.join(MODES)}"
    yield from _cluster(cluster)
    yield from _entrypoint(spec)
    yield from _pods(spec)
    yield from _policy(spec, documents)


def _fields(path: str, section: dict[str, Any], known: tuple[str, ...]) -> Iterator[Problem]:
    for key in section:
        if key not in known:
            yield f"{path}.{key}", None, f"KubeRay knows no such key{nearest(key, known)}"


def _cluster(cluster: dict[str, Any]) -> Iterator[Problem]:
    import ray

    path = "spec.rayClusterSpec"
    if cluster.get("rayVersion") != ray.__version__:
        yield f"{path}.rayVersion", cluster.get("rayVersion"), f"the lock has {ray.__version__}"
    mode = (cluster.get("authOptions") or {}).get("mode")
    if mode != "token":
        yield f"{path}.authOptions.mode", mode, "set it to token: else anyone who reaches it rules"
    head = cluster["headGroupSpec"]
    yield from _fields(f"{path}.headGroupSpec", head, HEAD)
    if head.get("serviceType", "ClusterIP") != "ClusterIP":
        yield (
            *(f"{path}.headGroupSpec.serviceType", head["serviceType"]),
            "set it to ClusterIP: else the head can be reached from outside; use port-forward",
        )
    if head.get("enableIngress"):
        yield f"{path}.headGroupSpec.enableIngress", True, "set it to false; use port-forward"
    for index, group in enumerate(cluster["workerGroupSpecs"]):
        where = f"{path}.workerGroupSpecs[{index}]"
        yield from _fields(where, group, WORKERS)
        if not group.get("groupName"):
            yield f"{where}.groupName", None, "is missing"


def _entrypoint(spec: dict[str, Any]) -> Iterator[Problem]:
    words = shlex.split(spec.get("entrypoint") or "")
    if words[:2] not in (["lenet", "train"], ["lenet", "sweep"]):
        yield "spec.entrypoint", spec.get("entrypoint"), "must be lenet train … or lenet sweep …"
        return
    given = dict(itertools.pairwise(words))
    for flag, why in (
        ("--name", "else each try begins another run"),
        ("--storage", "s3://BUCKET/PREFIX: a pod's own disk goes with it"),
    ):
        if flag not in given:
            yield "spec.entrypoint", None, f"give {flag}: {why}"
    if "--storage" in given and not given["--storage"].startswith("s3://"):
        yield "spec.entrypoint --storage", given["--storage"], "must be s3://BUCKET/PREFIX"
    wanted = given.get("--workers", "1").partition(":")[0]
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    there = sum(group.get("replicas", 0) for group in groups)
    if wanted.isdecimal() and int(wanted) > there:
        yield "spec.entrypoint --workers", wanted, f"the groups have {there} replicas"


def _pods(spec: dict[str, Any]) -> Iterator[Problem]:
    for path, template, runs_ray in _templates(spec):
        pod = template["spec"]
        security = pod.get("securityContext") or {}
        if security.get("runAsNonRoot") is not True:
            yield f"{path}.securityContext.runAsNonRoot", None, "set it to true"
        for container in pod["containers"]:
            where = f"{path}.containers.{container.get('name')}"
            tag = str(container.get("image", "")).rpartition("/")[2].partition(":")[2]
            if tag in ("", "latest"):
                yield f"{where}.image", container.get("image"), "name a version or a digest"
            own = container.get("securityContext") or {}
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{where}.securityContext.allowPrivilegeEscalation", None, "set it to false"
            if runs_ray:
                yield from _environment(where, container.get("env") or [])


def _environment(where: str, variables: list[dict[str, Any]]) -> Iterator[Problem]:
    given = {variable["name"]: variable.get("value") for variable in variables}
    for name, value in FAULT_DETECTION.items():
        if given.get(name) != value:
            yield f"{where}.env.{name}", given.get(name), f"set it to {value!r}, on all pods"


def _templates(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each pod template, where it stands, and whether Ray's nodes are made from it."""
    cluster, path = spec["rayClusterSpec"], "spec.rayClusterSpec"
    yield f"{path}.headGroupSpec.template.spec", cluster["headGroupSpec"]["template"], True
    for index, group in enumerate(cluster["workerGroupSpecs"]):
        yield f"{path}.workerGroupSpecs[{index}].template.spec", group["template"], True
    if template := spec.get("submitterPodTemplate"):
        yield "spec.submitterPodTemplate.spec", template, False


def _policy(spec: dict[str, Any], documents: list[dict[str, Any]]) -> Iterator[Problem]:
    """A NetworkPolicy must hold for every pod."""
    chosen = [
        document["spec"]["podSelector"].get("matchLabels", {})
        for document in documents
        if document.get("kind") == "NetworkPolicy"
    ]
    for path, template, _ in _templates(spec):
        labels = ((template.get("metadata") or {}).get("labels") or {}).items()
        if not any(wanted.items() <= labels for wanted in chosen):
            yield (
                *(f"{path.removesuffix('.spec')}.metadata.labels", dict(labels)),
                "no NetworkPolicy in this file holds for these pods: others could reach them",
            )
