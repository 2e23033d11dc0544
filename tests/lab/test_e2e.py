"""Clusters from `ray up` to `ray down`, on simulated hosts: `make e2e`. The tests of one cluster
build on each other, in this order."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import subprocess
import time
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from tests.kit.nodes import alive, processes_under
from tests.kit.object_store import REGION
from tests.lab.e2e import ROOT
from tests.lab.lab import NETWORK, USER, Host, Lab
from tests.lab.launched import (
    LAPTOP,
    NODE_BIN,
    NODE_BINDS,
    SETTINGS,
    Launched,
    check_first_run,
    data_store,
    give_credentials,
    laptop_binds,
    losing,
    training,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

NODES = ("head", "worker1", "worker2")
DETECTION_LIMIT_SECONDS = 10.0


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    hosts = dict.fromkeys(NODES, NODE_BINDS)
    with Lab(
        tmp_path_factory.mktemp("lab"), {**hosts, LAPTOP: laptop_binds() + NODE_BINDS}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def onprem(lab, tmp_path_factory) -> Iterator[Launched]:
    """`ray up cluster/onprem.yaml`, with the settings that its user has to look at."""
    head, first, second = (lab[name].address for name in NODES)
    with data_store(tmp_path_factory.mktemp("s3")) as store:
        for name in NODES:
            give_credentials(lab[name], f"/home/{USER}", store)
        settings = {
            "head_ip: 192.168.1.10": f"head_ip: {head}",
            "[192.168.1.11, 192.168.1.12]": f"[{first}, {second}]",
            "LENET_STORAGE=/mnt/shared/lenet": (
                f"LENET_STORAGE=s3://{store.bucket}/runs AWS_ENDPOINT_URL_S3={store.endpoint} "
                f"AWS_REGION={REGION}"
            ),
            # The hosts share this machine's processors.
            "ray start --head": "ray start --head --num-cpus=1",
            "ray start --address": "ray start --num-cpus=1 --address",
        }
        cluster = Launched(lab, store, "cluster/onprem.yaml", settings, AWS_REGION=REGION)
        cluster.ray("up", "-y")
        yield cluster


def test_a_run_is_submitted_from_the_laptop_and_its_results_are_read_there(onprem):
    check_first_run(onprem)


def test_a_run_in_the_background_is_stopped_with_a_checkpoint_and_goes_on(onprem):
    train = ["lenet", "train", "--name", "big", "--data", onprem.data, *SETTINGS]
    line = f"{shlex.join(map(str, train))} --storage $LENET_STORAGE"
    onprem.ray("exec", f"ray job submit --no-wait --submission-id big -- {line}", keep="background")
    wait_until(lambda: (onprem.read("big", "reached.json") or {"step": 0})["step"] > 40, "training")
    onprem.ray("exec", "ray job stop big", keep="stop")
    log = onprem.ray("exec", "ray job logs big", keep="logs")
    assert re.search(r"stopped at step \d+ with a checkpoint in s3://", log)
    onprem.ray("exec", f"ray job submit --submission-id big-2 -- {line}", keep="continue")
    result = onprem.read("big", "result.json")
    assert (result["restarts"], result["lost_steps"]) == (1, 0)
    assert result["weights_sha256"] == onprem.read("first", "result.json")["weights_sha256"]


TRAIN_RUNS = """
import json, pathlib, urllib.request
token = pathlib.Path("~/.ray/auth_token").expanduser().read_text().strip()
url = "http://127.0.0.1:8265/api/train/v2/runs/v1"
request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
for run in json.load(urllib.request.urlopen(request))["train_runs"]:
    print(run["name"], run["status"], len(run["attempts"][-1]["workers"]))
"""


def test_ray_shows_a_run_while_it_trains(onprem):
    """In its dashboard, and among the metrics that each node has for Prometheus."""
    train = ["lenet", "train", "--name", "shown", "--data", onprem.data, *SETTINGS, "--epochs", 99]
    line = f"{shlex.join(map(str, train))} --storage $LENET_STORAGE"
    onprem.ray("exec", f"ray job submit --no-wait --submission-id shown -- {line}", keep="shown")
    head = onprem.head
    try:
        wait_until(lambda: gauges(head, "shown").get("step", 0) > 0, "metrics")
        seen = gauges(head, "shown")
        said = head.run(f"{NODE_BIN}/python", "-c", TRAIN_RUNS, user=USER)
    finally:
        # It would train beside all tests that follow.
        onprem.ray("exec", "ray job stop shown", keep="stop shown")
    assert seen.keys() == {"images_per_second", "loss", "step"}
    assert seen["images_per_second"] > 0
    # Untrained it is 2.3; this one reaches 0.3.
    assert 0.1 < seen["loss"] < 2.5
    assert {"first FINISHED 2", "shown RUNNING 2"} <= set(said.splitlines())


def gauges(head: Host, run: str) -> dict[str, float]:
    """A run's gauges, as Prometheus finds them."""
    # On the head, where the link that it is leads somewhere; it comes a little after Ray.
    name = "/tmp/ray/prom_metrics_service_discovery.json"
    groups = json.loads(
        head.run("sh", "-c", f"if [ -e {name} ]; then cat {name}; else echo []; fi")
    )
    found = {}
    for target in [target for group in groups for target in group["targets"]]:
        with urllib.request.urlopen(f"http://{target}/metrics") as answer:
            text = answer.read().decode()
        lines = re.findall(rf'^ray_lenet_(\w+){{.*ray_train_run_name="{run}".*}} (.+)$', text, re.M)
        found |= {name: float(value) for name, value in lines}
    return found


def test_a_sweep_is_submitted_like_a_run(onprem):
    small = ("--model", "ffnn", "--limit-train", 1200, "--trials", 2, "--max-epochs", 1)
    place = ("--storage", onprem.place, "--data", onprem.data)
    onprem.ray("submit", "tuning/sweep.py", "--", "--name", "search", *place, *small, keep="sweep")
    assert onprem.read("search", "winner.json")


# What each door's client does where it is let in, and from which host: the dashboard listens on the
# head's loopback only. Each prints SERVED.
HEAD = f"{NETWORK}.255.1"
HTTP = """
import os, pathlib, urllib.request
file = os.environ.get("RAY_AUTH_TOKEN_PATH")
headers = {"Authorization": "Bearer " + pathlib.Path(file).read_text().strip()} if file else {}
request = urllib.request.Request(%r, headers=headers, data=%r, method=%r)
request.add_header("Content-Type", "application/json")
print(urllib.request.urlopen(request).status == 200 and "SERVED")
"""
DOORS = {
    "GCS": (
        LAPTOP,
        "from ray._raylet import GcsClient\n"
        f"print('SERVED', GcsClient(address='{HEAD}:6379').get_all_node_info())",
    ),
    "Ray Client": (
        LAPTOP,
        # Its server forks while gRPC's threads run, and loses that race now and then.
        "import ray, tenacity\n"
        "connect = tenacity.retry(\n"
        "    stop=tenacity.stop_after_attempt(3),\n"
        "    retry=tenacity.retry_if_exception_type(ConnectionAbortedError),\n"
        ")(ray.util.connect)\n"
        f"connect('{HEAD}:10001', connection_retries=1)\n"
        "print('SERVED', ray.nodes())",
    ),
    "dashboard": ("head", HTTP % ("http://127.0.0.1:8265/api/v0/nodes", None, "GET")),
    "job submission": (
        "head",
        "from ray.job_submission import JobSubmissionClient\n"
        "client = JobSubmissionClient('http://127.0.0.1:8265')\n"
        "print('SERVED', client.submit_job(entrypoint='true'))",
    ),
    # Takes jobs too, and listens on the network.
    "dashboard agent": (
        LAPTOP,
        HTTP % (f"http://{HEAD}:52365/api/job_agent/jobs/", b'{"entrypoint": "true"}', "POST"),
    ),
    # Installs what it is told to.
    "runtime environment agent": (
        LAPTOP,
        HTTP % (f"http://{HEAD}:RANDOM/get_runtime_envs_info", b"", "POST"),
    ),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("token", ["none", "wrong", "right"])
def test_who_has_the_token_is_served_and_nobody_else(onprem, door, token):
    where, client = DOORS[door]
    # Not that of the nodes' account, which has the token.
    file = onprem.lab[where].path("/root/token")
    right = onprem.laptop.path("/root/.ray/auth_token").read_text()
    file.write_text(right if token == "right" else secrets.token_hex(32))
    env = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/root/token"}
    if token == "none":
        env = {"RAY_AUTH_MODE": "disabled"}
    (random,) = (port for port, owner in listeners(onprem).items() if owner == "ray::RuntimeEnv")
    client = client.replace("RANDOM", str(random))
    command = onprem.lab[where].command(f"{NODE_BIN}/python", "-c", client, **env)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    is_served = done.returncode == 0 and done.stdout.startswith("SERVED")
    assert is_served == (token == "right"), done.stdout + done.stderr


def test_another_host_finds_only_the_ports_that_the_documents_list(onprem):
    head = onprem.lab["head"]
    found = json.loads(onprem.laptop.run("/usr/bin/python3", "-c", SCAN, head.address))
    fixed, ranges = documented_ports()
    assert {22, 6379} <= fixed
    assert 8265 not in fixed
    unknown = [p for p in found if p not in fixed and not any(p in r for r in ranges)]
    # The table's rows of random ports, by the names that Ray gives to its processes.
    owners = listeners(onprem)
    assert {owners.get(port) for port in unknown} <= {
        "raylet",
        "ray::DashboardA",
        "ray::RuntimeEnv",
    }
    assert {22, 6379} <= set(found), "the scan saw nothing"


def listeners(cluster: Launched) -> dict[int, str]:
    """The ports of the head on which something listens, with the name of the process."""
    listing = cluster.lab["head"].run("ss", "-Htlnp")
    return {int(p): owner for p, owner in re.findall(r":(\d+) .*?\(\(\"([^\"]+)", listing)}


SCAN = """
import errno, json, selectors, socket, sys
selector, ports, found = selectors.DefaultSelector(), iter(range(1, 65536)), []
def connect(port):
    client = socket.socket()
    client.setblocking(False)
    if client.connect_ex((sys.argv[1], port)) in (0, errno.EINPROGRESS):
        selector.register(client, selectors.EVENT_WRITE, port)
for port in ports:
    connect(port)
    while len(selector.get_map()) > 300 or (port == 65535 and selector.get_map()):
        for key, _ in selector.select():
            if key.fileobj.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                found.append(key.data)
            selector.unregister(key.fileobj)
            key.fileobj.close()
print(json.dumps(sorted(found)))
"""


def documented_ports() -> tuple[set[int], list[range]]:
    """Ports, and ranges of them, that docs/cluster.md says other machines can reach."""
    rows = (ROOT / "docs" / "cluster.md").read_text().partition("## Ports")[2].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row[:1] == "|"]
    fixed, ranges = set(), []
    for port, _, listens, _ in cells[2:]:
        if listens.startswith("127.0.0.1"):
            continue
        for first, last in re.findall(r"(\d+)(?:–(\d+))?", port):
            ranges += [range(int(first), int(last) + 1)] if last else []
            fixed |= set() if last else {int(first)}
    return fixed, ranges


def test_edited_code_runs_on_every_node(onprem):
    """The trap: a file that is new on the laptop and the head, and old where the workers are."""
    mark = secrets.token_hex(8)
    module = "job/training/progress.py"
    text = (onprem.project / module).read_text()
    leave = f'\nwith open("/tmp/edited", "w") as _stream:\n    _stream.write("{mark}")\n'
    (onprem.project / module).write_text(text + leave)
    before = list(map(raylets, onprem.nodes))
    began = time.monotonic()
    onprem.ray("up", "-y", "--no-restart", keep="up --no-restart")
    for host in onprem.nodes:
        copy = host.path(f"/home/{USER}/lenet/{module}")
        wait_until(lambda copy=copy: mark in copy.read_text(), f"the edit on {host.name}")
    onprem.seconds["edit"] = time.monotonic() - began
    assert list(map(raylets, onprem.nodes)) == before, "Ray started anew"
    short = ("--limit-train", 1200, "--epochs", 1, "--batch-size", 120, "--workers", 3)
    onprem.ray("submit", *training(onprem, "edited", *short), keep="submit an edit")
    for host in onprem.nodes:
        assert host.path("/tmp/edited").read_text() == mark, host.name


def raylets(host: Host) -> list[psutil.Process]:
    return [p for p in processes_under(host.pid) if alive(p) and p.name() == "raylet"]


def test_a_worker_whose_cable_is_pulled_out_is_noticed_and_replaced(onprem, keep):
    with losing(onprem, "cut") as loss:
        onprem.lab.cut(loss.victim)
    onprem.lab.mend(loss.victim)
    assert max(loss.figures["noticed"], loss.figures["dead"]) <= DETECTION_LIMIT_SECONDS
    keep("cut", loss.figures)


def test_no_secret_is_in_what_was_written_about_it(onprem):
    secret = [
        onprem.laptop.path("/root/.ray/auth_token").read_bytes().strip(),
        onprem.store.env()["AWS_SECRET_ACCESS_KEY"].encode(),
    ]
    logs = [*onprem.lab.folder.glob("ray-*.log")]
    for host in onprem.nodes:
        logs += [p for p in host.path("/tmp/ray").rglob("*") if p.is_file() and not p.is_symlink()]
    assert len(logs) > 20
    assert not [str(path) for path in logs if any(s in path.read_bytes() for s in secret)]


def test_down(onprem, keep):
    onprem.ray("down", "-y")
    assert raylets(onprem.lab["head"]) == []
    keep("onprem", onprem.seconds)
    # Nobody tells the workers, as the documents say.
    wait_until(lambda: not any(map(raylets, onprem.nodes)), "the end of the workers' Ray")
