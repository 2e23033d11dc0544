"""What `lenet doctor` finds: on a healthy cluster nothing, and each fault by name, with the fix.

The cluster is real, two nodes with a processor each and a head without, and asks for a token; so is
the object store.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from cluster.connection import connected
from cluster.doctor import checks
from cluster.doctor.examine import _together
from cluster.doctor.facts import Disk, Facts, Listener, facts, listeners, storage_problem
from cluster.doctor.facts import data as data_at
from cluster.doctor.findings import FAIL, OK, WARN
from cluster.doctor.machines import Machines, RayNodes, ThisMachine
from cluster.doctor.network import Reduced
from tests.kit.commands import lines_of
from tests.kit.doctor_lines import only
from tests.kit.nodes import Nodes
from tuning.cli import run_command

GB = 1e9


@pytest.fixture(scope="module")
def cluster(store, tmp_path_factory) -> Iterator[Nodes]:
    from ray._private.authentication_test_utils import reset_auth_token_state

    folder = tmp_path_factory.mktemp("nodes")
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text("0123456789abcdef" * 4)
    extra = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), **store.env()}
    before = dict(os.environ)
    os.environ.update(extra)
    # This process may have talked to clusters without a token.
    reset_auth_token_state()
    try:
        with Nodes(folder, 2, **extra) as nodes:
            yield nodes
    finally:
        os.environ.clear()
        os.environ.update(before)
        reset_auth_token_state()


@pytest.fixture
def open_port(tmp_path) -> Iterator[int]:
    """A port on which another process listens to everyone."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "0.0.0.0"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=tmp_path, **quiet)
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            break
        assert server.poll() is None
        time.sleep(0.02)
    yield port
    server.kill()
    server.wait()


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Facts:
    """What this machine is like."""
    return facts(str(tmp_path_factory.mktemp("runs")))


def test_a_healthy_cluster(cluster, lenet, tmp_path, mnist):
    where = ("--address", cluster.cluster.address, "--storage", "runs")
    done = lenet("doctor", *where, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert lines_of(done.stderr) == []
    document = json.loads(done.stdout)
    assert document["ok"] is True
    found = {one["check"]: one for one in document["checks"]}
    # What else listens on this machine, and how busy it is, is not the cluster's doing.
    may_warn = {"ports", "all-reduce"}
    for check, one in found.items():
        assert one["status"] == OK or (check in may_warn and one["status"] == WARN), one
    assert set(found) == {
        *("versions", "code", "token", "ports", "disk", "clocks", "GPUs", "storage", "data"),
        "all-reduce",
    }
    assert "3 nodes: " in found["versions"]["text"]
    assert f"2 nodes: {tmp_path}/runs, writable" in found["storage"]["text"]
    assert "Ray asks for it" in found["token"]["text"]
    assert found["clocks"]["figures"]["most_seconds"] < 0.1
    measured = found["all-reduce"]["figures"]
    assert measured["nodes"] == 2
    assert measured["how"] == "RING"
    assert 0 < measured["latency_seconds"] < 1
    assert 1e6 < measured["bytes_per_second"] < 1e12
    assert not any(tmp_path.iterdir())


def test_a_machine_without_a_cluster(lenet, tmp_path, mnist, open_port):
    """Ray is not started; each fault has its line and its fix."""
    token = tmp_path / "auth_token"
    token.touch(mode=0o644)
    (tmp_path / "file").touch()
    done = lenet(
        *("doctor", "--storage", "file/runs", "--data", "nowhere"),
        cwd=tmp_path,
        RAY_AUTH_TOKEN_PATH=str(token),
    )
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    status = {line[6:18].strip(): line[:5].strip() for line in lines}
    assert status == {
        **{"versions": OK, "disk": OK, "GPUs": OK, "all-reduce": OK},
        **{"token": WARN, "ports": WARN, "storage": FAIL, "data": FAIL},
    }
    for said in (
        *("chmod 600", f"{open_port} (python", "file/runs: can't be written (Not a directory)"),
        *("nowhere: no such folder; ", "lenet data stage", "docs/storage.md"),
    ):
        assert said in done.stdout
    assert done.stderr == "error: 2 of 8 checks failed\n"


def test_nothing_heavy_is_imported_before_it_is_needed():
    look = (
        "import sys, cluster.doctor.examine; sys.exit(str({'ray', 'tensorflow'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True)
    assert done.stderr == "set()\n"


BAD = {
    "an unknown data set": (["--dataset", "minst"], "--dataset 'minst'"),
    "one's own without a place": (["--dataset", "own"], "needs --data"),
    "an unknown kind of storage": (["--storage", "ftp://h/x"], "--storage 'ftp://h/x'"),
    "data with a secret": (["--data", "s3://key:secret@b/p"], "--data 's3://...'"),
    "an address that is none": (["--address", "nonsense"], "give auto, local or HOST:PORT"),
    "no such cluster file": (["--cluster-file", "no.yaml"], "--cluster-file 'no.yaml'"),
    "an unknown option": (["--adress", "auto"], "No such option"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_not_a_finding(case, capfd):
    arguments, said = BAD[case]
    assert run_command(["doctor", *arguments]) == 2
    out, error = capfd.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert said in line
    assert "secret" not in line


def test_a_cluster_that_is_not_there(lenet, tmp_path):
    done = lenet("doctor", "--address", "127.0.0.1:1", "--json", cwd=tmp_path)
    assert done.returncode == 1
    (one,) = json.loads(done.stdout)["checks"]
    assert (one["check"], one["status"]) == ("cluster", FAIL)
    assert "no Ray cluster answers there" in one["text"]


NO_TOKEN = {
    "another token": {"RAY_AUTH_TOKEN": "f" * 64},
    "no token": {"RAY_AUTH_TOKEN_PATH": "nowhere"},
    "token authentication off": {"RAY_AUTH_MODE": "disabled"},
}


@pytest.mark.parametrize("case", NO_TOKEN)
def test_a_cluster_that_asks_for_a_token(case, cluster, lenet, tmp_path):
    where = ("--address", cluster.cluster.address)
    done = lenet("doctor", *where, cwd=tmp_path, **NO_TOKEN[case])
    assert done.returncode == 1, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("fail  cluster")
    assert "asks for a token that this process does not have; set RAY_AUTH_MODE=token" in line
    assert done.stderr == "error: 1 of 1 checks failed\n"


def test_a_cluster_file_alone_is_checked_offline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[2])
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.touch(mode=0o600)
    (tmp_path / ".ssh").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run_command(["doctor", "--cluster-file", "ray_cluster.yaml"]) == 0
    assert capsys.readouterr().out == "ok    cluster file ray_cluster.yaml, offline\n"
    token.chmod(0o644)
    assert run_command(["doctor", "--cluster-file", "ray_cluster.yaml", "--json"]) == 1
    out, error = capsys.readouterr()
    (one,) = json.loads(out)["checks"]
    assert "others can read it; chmod 600 it" in one["text"]
    assert error == "error: 1 of 1 checks failed\n"


class NotThere:
    """A question of a project that only this process has."""

    def __reduce__(self):
        return (__import__, ("a_project_that_is_not_there",))


def test_nodes_reach_the_object_store(cluster, store):
    """With credentials of their own, as from an instance profile."""
    with connected(cluster.cluster.address):
        asked = RayNodes(20.0)
        for bucket, status, said in ((store.bucket, OK, "2 nodes: "), ("other", FAIL, "no bucket")):
            uri = f"s3://{bucket}/doctor"
            found = asked.ask("storage", storage_problem, asked.users(uri))
            assert set(found) == set(asked.trainers)
            for finding in checks.storage(uri, found):
                assert finding.status == status
                assert said in finding.text


def test_a_node_without_this_project_and_one_that_is_silent(cluster):
    victim = cluster.nodes[-1]
    raylet = victim.all_processes["raylet"][0].process
    with connected(cluster.cluster.address):
        asked = RayNodes(20.0)
        workers = asked.trainers
        (head,) = set(asked.names) - set(workers)
        assert asked.ask("data", NotThere(), {head: ()}) == {}
        lost = only(asked.lost(), FAIL, "No module named 'a_project_that_is_not_there'")
        assert lost.machine == head
        assert asked.names == workers
        assert len(workers) == 2
        raylet.send_signal(signal.SIGSTOP)
        try:
            # Ray itself would notice after nine seconds.
            asked = RayNodes(6.0)
            answers = asked.ask("machine", os.getpid, asked.everyone())
        finally:
            raylet.send_signal(signal.SIGCONT)
    lost = only(asked.lost(), FAIL, "no answer in 6 s")
    assert victim.node_id[:6] in lost.machine
    assert set(answers) == set(asked.names) == {head, *workers} - {lost.machine}


def test_a_stuck_question_here():
    with ThisMachine(0.5) as machine:
        assert machine.ask("storage", time.sleep, machine.everyone(60)) == {}
        only(machine.lost(), FAIL, "no answer in 0.5 s")
        assert machine.names == []


class Answering(Machines):
    """Machines that say what they are told to, by name and question, and else fail."""

    def __init__(self, answers: dict[str, dict[str, Any]]) -> None:
        super().__init__(list(answers), limit=1.0)
        self._answers = answers

    def _begin(self, name: str, question: Callable, arguments: tuple) -> Any:
        return self._answers[name].get(question.__name__)

    def _end(self, begun: Any, seconds: float) -> Any:
        if begun is None:
            raise OSError("gone")
        return begun


@pytest.mark.parametrize("last", ["computes_on", "free_address"])
def test_a_machine_that_is_left_alone_adds_nothing_up(last):
    """It would be asked for a sum over one machine, and be blamed for having none."""
    answers = {"computes_on": "cpu", "free_address": "a:1"}
    fewer = {name: said for name, said in answers.items() if name < last}
    machines = Answering({"a": answers, "b": fewer})
    assert not list(_together(machines))
    (lost,) = machines.lost()
    assert lost.machine == "b"


class Unconditional(BaseHTTPRequestHandler):
    """An object store of the old kind, which writes under whatever condition."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self) -> None:
        self.objects[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"", ETag='"1"')

    def do_GET(self) -> None:
        self.answer(self.objects.get(self.path, b"<ListBucketResult/>"), ETag='"1"')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(b"<DeleteResult/>")

    def answer(self, body: bytes, **headers: str) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.send_header("Last-Modified", self.date_time_string())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def unconditional(store, monkeypatch) -> Iterator[str]:
    handler = type("Handler", (Unconditional,), {"objects": {}})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        for name, value in store.env(f"http://127.0.0.1:{server.server_port}").items():
            monkeypatch.setenv(name, value)
        yield "s3://bucket/runs"
        server.shutdown()
        thread.join()


def test_storage_without_conditional_writes(unconditional):
    problem = storage_problem(unconditional)
    only(checks.storage(unconditional, {"a": problem}), FAIL, "does not support conditional writes")


def test_storage_that_may_only_be_read(store, s3, monkeypatch):
    only(checks.storage(s3, {"a": storage_problem(s3), "b": None}), OK, "2 nodes: ", s3)
    for name, value in store.env(reader=True).items():
        monkeypatch.setenv(name, value)
    only(checks.storage(s3, {"a": storage_problem(s3)}), FAIL, "a: ", "no permission")


def test_a_folder_that_is_another_on_each_machine(tmp_path):
    runs = tmp_path / "runs"
    assert storage_problem(str(runs)) is None
    assert not runs.exists()
    problem = storage_problem(str(runs), marker=".doctor-of-another-machine")
    only(checks.storage(str(runs), {"a": problem}), FAIL, "not shared", "s3://")


def test_data_that_is_damaged_or_missing(tmp_path, mnist, monkeypatch):
    for name, content in mnist.items():
        (tmp_path / name).write_bytes(content)
    place = str(tmp_path)
    only(checks.data({"a": data_at("mnist", place)}, is_named=True), OK, place)
    labels = tmp_path / next(name for name in mnist if "labels" in name)
    content = labels.read_bytes()
    labels.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    found = data_at("mnist", place)
    only(checks.data({"a": found}, is_named=True), FAIL, "a: ", labels.name, "lenet data stage")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    only(checks.data({"a": data_at("mnist", None)}, is_named=False), WARN, "will download")
    assert not data_at("own", place).problem, "any IDX files, whose hash nobody has named"
    labels.write_bytes(content[:-1])
    assert labels.name in data_at("own", place).problem


def test_versions_must_agree(here):
    same = here.versions
    only(checks.versions(same, {"a": same, "b": same}), OK, "2 nodes: python 3.")
    other = {**same, "keras": "3.14.0", "ray": None}
    said = "b: ray is not installed; keras 3.14.0, here 3."
    only(checks.versions(same, {"a": same, "b": other}), FAIL, said)
    only(checks.versions({**same, "keras": None}, {"a": same}), FAIL, "here none")


def test_code_must_agree():
    here = {"job/a.py": "1", "job/b.py": "2"}
    only(checks.code(here, {"a": {**here, "job/old.py": "3"}}), OK)
    only(checks.code(here, {"a": here, "b": {"job/a.py": "9"}}), FAIL, "b: job/a.py and 1 more")


def test_sums_that_are_slow_or_wrong():
    fast = Reduced(how="NCCL", is_right=True, latency=0.0001, large_seconds=0.001)
    only(checks.all_reduce({"a": fast, "b": fast}), OK, "2 nodes: NCCL, 0.10 ms", "8.39 GB/s")
    late = dataclasses.replace(fast, latency=0.2)
    only(checks.all_reduce({"a": fast, "b": late}), WARN, "200.00 ms", "faster network")
    thin = dataclasses.replace(fast, large_seconds=1.0)
    only(checks.all_reduce({"a": thin, "b": fast}), WARN, "0.01 GB/s")
    wrong = dataclasses.replace(fast, is_right=False)
    only(checks.all_reduce({"a": fast, "b": wrong}), FAIL, "b: the sum is wrong")


def test_disks_that_fill_up(here):
    disk = Disk(folder="/x", free=int(20 * GB), total=int(100 * GB))
    only(checks.disks({"a": (disk,), "b": (disk,)}), OK, "20.0 GB")
    low = dataclasses.replace(disk, free=int(4 * GB), total=int(40 * GB))
    only(checks.disks({"a": (disk,), "b": (disk, low)}), WARN, "b: 4.0 GB free at /x")
    only(checks.disks({"a": (low,)}, fail_below=4.1 * GB), FAIL)
    full = dataclasses.replace(disk, total=int(1000 * GB))
    only(checks.disks({"a": (full,)}), FAIL, "98% used")
    assert here.disks
    (finding,) = checks.disks({"a": here.disks[:1]}, fail_below=1e18)
    assert finding.status == FAIL


def test_clocks_that_differ():
    only(checks.clocks({"a": (0.001, 0.002), "b": (-0.002, 0.001)}), OK, "at most 3 ms")
    only(checks.clocks({"a": (0.0, 0.1), "b": (-3.0, 0.1)}), WARN, "b: 3.0 s behind", "NTP")
    only(checks.clocks({"a": (12.0, 0.1)}), FAIL, "12.0 s ahead")
    # An answer that took so long says nothing.
    only(checks.clocks({"a": (3.0, 2.5)}), OK)


def test_a_cluster_without_a_token(here):
    asked = dataclasses.replace(here, auth_mode="token", token_mode=0o600)
    only(checks.token({"a": asked}), OK, "Ray asks for it")
    off = dataclasses.replace(asked, auth_mode="disabled")
    only(checks.token({"a": asked, "b": off}), FAIL, "b: ", "RAY_AUTH_MODE=token")
    public = dataclasses.replace(asked, token_mode=0o640)
    only(checks.token({"a": public}), WARN, "chmod 600")


def test_a_listener_is_named_unless_it_is_this_machine_s_own_affair():
    with socket.create_server(("", 0)) as public, socket.create_server(("127.0.0.1", 0)) as own:
        found = {listener.port: listener for listener in listeners()}
        assert found[public.getsockname()[1]].process
        assert own.getsockname()[1] not in found


def test_ports_that_the_documents_do_not_list(here):
    def with_ports(*listeners: Listener, in_kubernetes: bool = False) -> dict[str, Facts]:
        return {
            "a": dataclasses.replace(here, listeners=listeners, in_kubernetes=in_kubernetes),
        }

    ssh = Listener(port=22, process="", kind="")
    raylet = Listener(port=40001, process="raylet", kind="ray")
    metrics = Listener(port=44227, process="python", kind="dashboard")
    listed = ssh, raylet, metrics
    only(checks.ports(with_ports(*listed)), OK)
    dashboard = Listener(port=8265, process="python", kind="dashboard")
    only(checks.ports(with_ports(*listed, dashboard)), FAIL, "8265", "--dashboard-host=127.0.0.1")
    only(checks.ports(with_ports(*listed, dashboard, in_kubernetes=True)), OK)
    notebook = Listener(port=8888, process="jupyter-lab", kind="")
    unseen = Listener(port=9000, process="", kind="")
    found = checks.ports(with_ports(*listed, notebook, unseen))
    only(found, WARN, "8888 (jupyter-lab), 9000 (another user's)", "127.0.0.1")
