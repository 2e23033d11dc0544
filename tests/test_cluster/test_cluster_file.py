"""Cluster files: ours pass, and what could go wrong with one is named before it is started."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.connection import FAULT_DETECTION
from cluster.files.cluster_file import PROJECT, problems
from cluster.files.start_commands import parse

ROOT = Path(__file__).parents[2]
AWS, ONPREM = ROOT / "ray_cluster.yaml", ROOT / "cluster" / "onprem.yaml"
RAYJOB = ROOT / "cluster" / "rayjob.yaml"
HEAD = "available_node_types.head.node_config"
GPU = "available_node_types.gpu_worker.node_config"
REMOVED = object()


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch) -> Path:
    """A home with a token and a key, and the project as the working folder."""
    for name in (".ray/auth_token", ".ssh/lenet"):
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True)
        path.touch(mode=0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    return tmp_path / "home"


@pytest.mark.parametrize("path", [AWS, ONPREM, RAYJOB], ids=lambda path: path.name)
def test_our_files_have_no_problems(path):
    assert problems(path) == []


@pytest.mark.parametrize("path", [AWS, ONPREM], ids=lambda path: path.name)
def test_both_start_commands_have_the_fault_detection_of_the_driver(path):
    config = yaml.safe_load(path.read_text())
    for role in ("head", "worker"):
        (start,) = [s for c in config[f"{role}_start_ray_commands"] for s in parse(c)]
        assert FAULT_DETECTION.items() <= start.environment.items()


@pytest.mark.parametrize("path", [AWS, ONPREM], ids=lambda path: path.name)
def test_the_same_files_reach_every_node(path):
    mounts = yaml.safe_load(path.read_text())["file_mounts"]
    assert {f"~/lenet/{name}": name for name in PROJECT}.items() <= mounts.items()


def changed(config: Any, path: str, value: Any) -> Any:
    """A copy with one value replaced, added, removed, or (by a function) made from the old one."""
    config = copy.deepcopy(config)
    *way, last = path.split(" > ")
    place = config
    for step in way:
        place = place[int(step) if isinstance(place, list) else step]
    last = int(last) if isinstance(place, list) else last
    if value is REMOVED:
        del place[last]
    else:
        place[last] = value(place[last]) if callable(value) else value
    return config


def without(text: str) -> Any:
    return lambda command: command.replace(text, "")


def instead(old: str, new: str) -> Any:
    return lambda command: command.replace(old, new)


HEAD_START, WORKER_START = "head_start_ray_commands > 1", "worker_start_ray_commands > 1"
HEAD_NODE = "available_node_types > head > node_config"
GPU_NODE = "available_node_types > gpu_worker > node_config"

# What is changed, into what, and what the message must say.
AWS_MUTATIONS = [
    ("cluster_name", REMOVED, "cluster_name: is missing"),
    ("cluster_nam", "x", "cluster_nam: Ray knows no such key; did you mean 'cluster_name'?"),
    ("max_workers", "two", "max_workers 'two': must be a YAML integer"),
    ("max_workers", 0, "max_workers 0: leaves no worker"),
    ("provider", REMOVED, "provider: is missing"),
    ("provider > type", "awz", "provider.type 'awz': must be aws or local"),
    ("provider > region", REMOVED, "provider.region: is missing"),
    ("provider > regoin", "x", "provider.regoin: Ray reads no such key; did you mean 'region'?"),
    ("provider > region", "eu-west-1", "setup_commands 'AWS_REGION=us-west-2': is not provider.re"),
    ("provider > availability_zone", "eu-west-1a", "provider.availability_zone 'eu-west-1a': is n"),
    ("provider > cache_stopped_nodes", REMOVED, "provider.cache_stopped_nodes: set it to false"),
    ("provider > aws_credentials", {}, "provider.aws_credentials: take it out"),
    ("auth > ssh_user", REMOVED, "auth.ssh_user: is missing"),
    ("auth > ssh_private_key", "~/.ssh/none", "auth.ssh_private_key '~/.ssh/none': there is no su"),
    ("head_node_type", "haed", "head_node_type 'haed': is none of available_node_types; did you"),
    ("available_node_types > gpu_worker", REMOVED, "available_node_types: holds no type of worker"),
    ("available_node_types > gpu_worker > max_workers", 9, "gpu_worker.max_workers 9: is more tha"),
    ("available_node_types > gpu_worker > min_workers", 9, "sum of `min_workers`"),
    ("available_node_types > gpu_worker > resources", {"GPU": "one"}, "gpu_worker.resources.GPU"),
    ("available_node_types > gpu_worker > labls", {}, "'labls' was unexpected"),
    (f"{GPU_NODE} > InstanceTyp", "x", f"{GPU}.InstanceTyp: EC2 knows no such key; did you mean"),
    (f"{GPU_NODE} > InstanceType", "g4dn.xlarg", f"{GPU}.InstanceType 'g4dn.xlarg': EC2 knows no"),
    (f"{GPU_NODE} > InstanceMarketOptions > MarketType", "spott", f"{GPU}.InstanceMarketOptions.M"),
    (f"{GPU_NODE} > BlockDeviceMappings > 0 > Ebs > VolumeSize", "150", f"{GPU}.BlockDeviceMappin"),
    (f"{GPU_NODE} > IamInstanceProfile", REMOVED, f"{GPU}.IamInstanceProfile: is missing"),
    (f"{GPU_NODE} > IamInstanceProfile > Nam", "x", f"{GPU}.IamInstanceProfile.Nam: EC2 knows no "),
    (f"{HEAD_NODE} > IamInstanceProfile", REMOVED, "Ray makes a role that may do everything with "),
    (f"{HEAD_NODE} > SecurityGroupIds", REMOVED, f"{HEAD}.SecurityGroupIds: is missing"),
    (f"{HEAD_NODE} > ImageId", REMOVED, f"{HEAD}.ImageId: is missing"),
    (f"{HEAD_NODE} > MetadataOptions", REMOVED, f"{HEAD}.MetadataOptions.HttpTokens: set it to"),
    ("file_mounts > ~/lenet/job", REMOVED, "file_mounts.~/lenet/job: is missing"),
    ("file_mounts > ~/lenet/job", "jobs", "file_mounts.~/lenet/job 'jobs': is not here"),
    ("file_mounts > ~/lenet", ".", "file_mounts.~/lenet '.': mount job, cluster"),
    ("file_mounts > ~/.ray/auth_token", REMOVED, "file_mounts.~/.ray/auth_token: is missing"),
    ("file_mounts_sync_continuously", False, "file_mounts_sync_continuously False: set it to true"),
    ("setup_commands", [], "setup_commands: add bash ~/lenet/cluster/install.sh"),
    ("setup_commands", REMOVED, "setup_commands: is missing; then Ray installs a nightly build"),
    ("setup_commands > 0", "true", "setup_commands: nothing protects the token"),
    ("setup_commands > 0", "pip install ray", "setup_commands 'pip install ray': is not pinned"),
    ("head_setup_commands", REMOVED, "head_setup_commands: is missing"),
    ("head_start_ray_commands", REMOVED, "head_start_ray_commands: is missing; then Ray's dashboa"),
    ("head_start_ray_commands", ["ray stop"], "head_start_ray_commands: holds 0 times `ray start`"),
    ("worker_start_ray_commands", REMOVED, "worker_start_ray_commands: is missing"),
    (HEAD_START, without("RAY_AUTH_MODE=token"), "head_start_ray_commands: RAY_AUTH_MODE: set"),
    (WORKER_START, instead("=token", "=disabled"), "commands: RAY_AUTH_MODE 'disabled': set"),
    (HEAD_START, without("--dashboard-host=127.0.0.1"), "--dashboard-host: set --dashboard-host="),
    (HEAD_START, instead("127.0.0.1", "0.0.0.0"), "--dashboard-host '0.0.0.0': set"),
    (HEAD_START, instead("-host=127.0.0.1", "-host ::"), "--dashboard-host '::': set"),
    (HEAD_START, instead("--dashboard-host", "--dashbord-host"), "--dashbord-host: ray start has "),
    (HEAD_START, instead("v2=0", "v2=1"), "RAY_enable_autoscaler_v2 '1': set"),
    (HEAD_START, without("--autoscaling-config=~/ray_bootstrap_config.yaml"), "--autoscaling-conf"),
    (WORKER_START, instead("6379", "6380"), "--address '$RAY_HEAD_IP:6380': set --address"),
    *((HEAD_START, without(f"{k}={v}"), f"head_start_ray_commands: {k}: set {k}={v}")
      for k, v in FAULT_DETECTION.items()),
    *((WORKER_START, instead(f"{k}={v}", f"{k}=9"), f"_commands: {k} '9': set {k}={v}")
      for k, v in FAULT_DETECTION.items()),
    ("provider > security_group", {"IpPermissions": [{"IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
     "provider.security_group.IpPermissions[0].IpRanges[0].CidrIp '0.0.0.0/0': lets everyone in"),
    ("setup_commands > 1", lambda c: f"AWS_SECRET_ACCESS_KEY=hidden {c}", "setup_commands[1]: hol"),
    ("setup_commands > 1", lambda c: f"{c} X=AKIA0123456789ABCDEF", "setup_commands[1]: holds an "),
    ("setup_commands > 1", lambda c: f"{c} RAY_AUTH_TOKEN=hidden", "setup_commands[1]: holds Ray'"),
]  # fmt: skip


def found(folder: Path, *documents: Any) -> list[str]:
    path = folder / "cluster.yaml"
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return problems(path)


def check(messages: list[str], said: str) -> None:
    assert any(said in message for message in messages), messages
    # It names what is wrong, in a line, without repeating a secret.
    assert all("\n" not in message and "hidden" not in message for message in messages)


@pytest.mark.parametrize(("path", "value", "said"), AWS_MUTATIONS)
def test_each_fault_of_an_aws_file_is_named(tmp_path, path, value, said):
    config = changed(yaml.safe_load(AWS.read_text()), path, value)
    check(found(tmp_path, config), said)


ONPREM_MUTATIONS = [
    ("provider > head_ip", REMOVED, "provider.head_ip: is missing"),
    ("provider > worker_ips", [], "provider.worker_ips: is missing"),
    (
        "provider > worker_ips > 0",
        "192.168.1.10",
        "provider.worker_ips '192.168.1.10': is there tw",
    ),
    ("provider > worker_ip", [], "provider.worker_ip: Ray reads no such key; did you mean"),
    ("auth > ssh_user", REMOVED, "auth.ssh_user: is missing"),
    ("available_node_types", {"a": {}}, "the file: Ray refuses it"),
    (HEAD_START, instead("v2=0", "v2=1"), "leaves a `local` cluster one worker short"),
    ("worker_start_ray_commands", REMOVED, "worker_start_ray_commands: is missing"),
]


@pytest.mark.parametrize(("path", "value", "said"), ONPREM_MUTATIONS)
def test_each_fault_of_an_onprem_file_is_named(tmp_path, path, value, said):
    config = changed(yaml.safe_load(ONPREM.read_text()), path, value)
    check(found(tmp_path, config), said)


CLUSTER, POD = "spec > rayClusterSpec", "headGroupSpec > template"
HEAD_CONTAINER = f"{CLUSTER} > {POD} > spec > containers > 0"
RAYJOB_MUTATIONS = [
    ("apiVersion", "ray.io/v2", "kind: one RayJob of apiVersion ray.io/v1"),
    ("metadata > name", REMOVED, "metadata.name: is missing"),
    (
        "spec > entrypont",
        "x",
        "spec.entrypont: KubeRay knows no such key; did you mean 'entrypoint'",
    ),
    ("spec > entrypoint", "python x.py", "spec.entrypoint 'python x.py': must be lenet train"),
    ("spec > entrypoint", without(" --name mnist"), "spec.entrypoint: give --name"),
    ("spec > entrypoint", instead("s3://BUCKET", "/runs"), "--storage '/runs/lenet': must be s3"),
    ("spec > entrypoint", instead("workers 2", "workers 3"), "--workers '3': the groups have 2"),
    ("spec > submissionMode", "JobMode", "spec.submissionMode 'JobMode': must be one of"),
    (f"{CLUSTER} > headGroupSpec", REMOVED, "spec: is not of a RayJob's form"),
    (f"{CLUSTER} > rayVersion", "2.9.0", "spec.rayClusterSpec.rayVersion '2.9.0': the lock has"),
    (f"{CLUSTER} > authOptions", REMOVED, "spec.rayClusterSpec.authOptions.mode: set it to token"),
    (f"{CLUSTER} > headGroupSpec > serviceType", "LoadBalancer", "serviceType 'LoadBalancer': set"),
    (f"{CLUSTER} > headGroupSpec > enableIngress", True, "enableIngress True: set it to false"),
    (f"{CLUSTER} > headGroupSpec > rayStartParams > dashboard-host", "0.0.0.0", "lets everyone in"),
    (
        f"{CLUSTER} > workerGroupSpecs > 0 > replica",
        2,
        "workerGroupSpecs[0].replica: KubeRay knows",
    ),
    (f"{CLUSTER} > {POD} > spec > securityContext", REMOVED, "securityContext.runAsNonRoot: set"),
    (
        f"{CLUSTER} > {POD} > metadata",
        REMOVED,
        "headGroupSpec.template.metadata.labels {}: no Netw",
    ),
    (f"{HEAD_CONTAINER} > image", "x/lenet", "containers.ray-head.image 'x/lenet': name a version"),
    (
        f"{HEAD_CONTAINER} > image",
        "x:5/lenet:latest",
        "containers.ray-head.image 'x:5/lenet:latest'",
    ),
    (f"{HEAD_CONTAINER} > securityContext", REMOVED, "allowPrivilegeEscalation: set it to false"),
    (f"{HEAD_CONTAINER} > env > 1", REMOVED, "env.RAY_health_check_period_ms: set it to '1000'"),
    (
        f"{HEAD_CONTAINER} > env > 0",
        {"name": "AWS_SECRET_ACCESS_KEY", "value": "hidden"},
        "AWS cred",
    ),
]


@pytest.mark.parametrize(("path", "value", "said"), RAYJOB_MUTATIONS)
def test_each_fault_of_a_rayjob_is_named(tmp_path, path, value, said):
    job, *others = yaml.safe_load_all(RAYJOB.read_text())
    check(found(tmp_path, changed(job, path, value), *others), said)


def test_a_rayjob_without_its_network_policy_is_open(tmp_path):
    job = next(yaml.safe_load_all(RAYJOB.read_text()))
    check(found(tmp_path, job), "no NetworkPolicy in this file holds for these pods")


def test_a_token_that_others_can_read_is_named(laptop):
    (laptop / ".ray" / "auth_token").chmod(0o644)
    check(problems(AWS), "others can read it; chmod 600 it")
    (laptop / ".ray" / "auth_token").unlink()
    check(problems(AWS), "make it: (umask 077; ray get-auth-token --generate > /dev/null)")


def test_a_key_that_stands_twice_is_named(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(AWS.read_text() + "\nmax_workers: 9\n")
    check(problems(path), "key 'max_workers' stands twice")


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", "a: b\n---\nc: d\n", "\x00"])
def test_what_is_no_cluster_file_is_named(tmp_path, text):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    assert problems(path)
    assert problems(tmp_path / "missing.yaml")


def test_nothing_is_printed(capfd):
    problems(AWS)
    problems(ONPREM)
    assert capfd.readouterr() == ("", "")


def test_start_commands_are_read_as_a_shell_would():
    (start,) = parse(
        "ulimit -n 9; export A=1 && B='x y' C= ray start --head --port 5 --block --d=e"
    )
    assert start.environment == {"A": "1", "B": "x y", "C": ""}
    assert start.options == {"--head": "", "--port": "5", "--block": "", "--d": "e"}
    assert parse("ray stop") == parse("echo 'ray start'") == parse("A='") == []


def test_a_node_that_is_set_up_twice_stays_the_same(tmp_path):
    project, venv = tmp_path / "lenet", tmp_path / "lenet-venv"
    (project / "cluster").mkdir(parents=True)
    venv.mkdir()
    for name in ("cluster/install.sh", "pyproject.toml", "requirements-cluster.lock"):
        shutil.copy(ROOT / name, project / name)
    files = ("requirements-cluster.lock", "pyproject.toml")
    lock = b"".join((project / name).read_bytes() for name in files)
    # As if the installation had been done: the test is about the rest.
    (venv / ".installed").write_text(f"{hashlib.sha256(lock).hexdigest()}  -\n")
    (tmp_path / ".bashrc").write_text("return\n")
    no_gpu = tmp_path / "bin" / "nvidia-smi"
    no_gpu.parent.mkdir()
    no_gpu.write_text("#!/bin/sh\nexit 9\n")
    no_gpu.chmod(0o755)
    place = {"HOME": str(tmp_path), "PATH": f"{no_gpu.parent}:/usr/bin:/bin"}
    for _ in range(2):
        command = ["bash", project / "cluster/install.sh", "A=b c", "D=s3://x"]
        assert subprocess.run(command, env=place, capture_output=True).returncode == 0
    assert (tmp_path / ".bashrc").read_text() == f". {tmp_path}/.lenet-env\nreturn\n"
    said = 'echo "$A|$D|$RAY_AUTH_MODE|$PYTHONDONTWRITEBYTECODE|${PATH%%:*}"'
    done = subprocess.run(
        ["bash", "-c", f". ~/.bashrc; {said}"], env=place, capture_output=True, text=True
    )
    assert done.stdout == f"b c|s3://x|token|1|{venv}/bin\n"


POLICIES = sorted((ROOT / "cluster" / "iam").glob("*-policy.json"))
# What job/storage/s3.py calls: get_object and head_object, put_object, delete_objects,
# list_objects_v2.
S3_ACTIONS = {"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"}


def statements(path: Path) -> list[dict]:
    document = json.loads(path.read_text())
    assert document["Version"] == "2012-10-17"
    return document["Statement"]


@pytest.mark.parametrize("path", POLICIES, ids=lambda path: path.stem)
def test_policies_allow_named_actions_only(path):
    for statement in statements(path):
        assert statement["Effect"] == "Allow"
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
        if statement.get("Resource") == ["*"]:
            # EC2's lists can't be limited to resources.
            assert all(action.startswith("ec2:Describe") for action in actions)


def test_workers_may_use_their_prefix_and_nothing_else():
    allowed = statements(ROOT / "cluster" / "iam" / "worker-policy.json")
    assert {action for statement in allowed for action in statement["Action"]} == S3_ACTIONS
    resources = [resource for statement in allowed for resource in statement["Resource"]]
    assert [r for r in resources if "*" in r] == ["arn:aws:s3:::BUCKET/lenet/*"]


def test_the_storage_makes_no_call_that_the_policy_does_not_allow():
    source = (ROOT / "job" / "storage" / "s3.py").read_text()
    calls = set(re.findall(r"\b(\w+_(?:objects?|objects_v2|bucket|multipart_upload))\b", source))
    # Both ways to delete are one action.
    allowed = {"get_object", "head_object", "put_object", "delete_object", "delete_objects"}
    assert calls == allowed | {"list_objects_v2"}


def test_instances_can_be_ended_only_within_the_cluster():
    for name in ("head", "launcher"):
        for statement in statements(ROOT / "cluster" / "iam" / f"{name}-policy.json"):
            if "ec2:TerminateInstances" in statement["Action"]:
                assert statement["Condition"]["StringEquals"] == {
                    "aws:ResourceTag/ray-cluster-name": "lenet"
                }
            if "iam:PassRole" in statement["Action"]:
                assert not any("*" in resource for resource in statement["Resource"])
