"""A cluster of the lab's hosts, launched by a user from the lab's laptop."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from job.storage.open import open_storage
from tests.kit.commands import command
from tests.kit.nodes import alive, training_workers
from tests.kit.object_store import ObjectStore
from tests.lab.e2e import ROOT, VENV, WORK
from tests.lab.lab import HERE, OWN_FOLDERS, USER, Bind, Host, Lab

LAPTOP = "laptop"
PROJECT = "/root/lenet"
NODE_BINDS = (Bind(WORK / VENV, Path("/") / VENV),)
NODE_BIN = f"/{VENV}/bin"
WORKERS = 2
SETTINGS = (
    *("--workers", WORKERS, "--limit-train", 12_000, "--batch-size", 100, "--epochs", 3),
    *("--optimizer", "momentum", "--learning-rate", 0.05, "--checkpoint-every", 20),
)
# Waits for all nodes, says so, and then when one of them counts as dead.
WATCH = """
import sys, time
from ray._raylet import GcsClient
client = GcsClient(address="127.0.0.1:6379")
def count():
    return sum(node.state == 0 for node in client.get_all_node_info().values())
while count() < int(sys.argv[1]):
    time.sleep(0.1)
print("all", flush=True)
while count() == int(sys.argv[1]):
    time.sleep(0.1)
print(time.time(), flush=True)
"""
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 180.0


def laptop_binds() -> tuple[Bind, ...]:
    """This process' Python, where it would be hidden by the laptop's own folders."""
    places = {Path(sys.prefix), Path(sys.base_prefix)}
    return tuple(Bind(place, place) for place in places if place.parts[1] in OWN_FOLDERS)


def edited(text: str, edits: dict[str, str]) -> str:
    """A text with settings changed by hand. Raises ValueError where one is not there just once."""
    for old, new in edits.items():
        if text.count(old) != 1:
            raise ValueError(f"{text.count(old)} times in the file: {old}")
        text = text.replace(old, new)
    return text


def wait_until(condition: Callable[[], bool], what: str) -> float:
    """Waits for a condition; returns the seconds it took. Raises TimeoutError."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > PATIENCE_SECONDS:
            raise TimeoutError(f"{what}: not after {PATIENCE_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - began


class Launched:
    """A cluster, from the first command to the last.

    Args:
        lab: Has a laptop, which gets the project and the credentials.
        store: Where the runs are.
        file: The cluster file, from the project's folder.
        edits: What the user changes in it.
        env: More of the laptop's environment.
    """

    def __init__(
        self, lab: Lab, store: ObjectStore, file: str, edits: dict[str, str], **env: str
    ) -> None:
        self.lab, self.store, self.file = lab, store, file
        self.laptop = lab[LAPTOP]
        self.env = {"PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin", **env}
        self.seconds: dict[str, float] = {}
        self.project = self.laptop.path(PROJECT)
        self._check_out()
        self._give_credentials()
        self.edit(file, edits)

    def edit(self, name: str, edits: dict[str, str]) -> None:
        """Changes a file of the project on the laptop."""
        path = self.project / name
        path.write_text(edited(path.read_text(), edits))

    def shell(self, line: str) -> str:
        """Runs a line in a shell on the laptop, in the project's folder; returns its output."""
        return self.laptop.run("bash", "-c", f"cd {PROJECT} && {line}", **self.env)

    def ray(self, verb: str, *words: object, keep: str | None = None) -> str:
        """`ray VERB FILE WORDS` on the laptop; returns its output, and keeps the time it took, by
        the verb or a name. Raises AssertionError, with the output, where it fails."""
        began = time.monotonic()
        process = self.start(verb, *words)
        code = process.wait()
        self.seconds[keep or verb] = time.monotonic() - began
        assert code == 0, f"ray {verb} ended with {code}:\n{self.output(verb)}"
        return self.output(verb)

    def start(self, verb: str, *words: object) -> subprocess.Popen:
        """The same, without waiting for its end."""
        line = shlex.join(["ray", verb, self.file, *map(str, words)])
        command = self.laptop.command("bash", "-c", f"cd {PROJECT} && {line}", **self.env)
        with self._log(verb).open("w") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )

    def output(self, verb: str) -> str:
        """What the last such command printed so far."""
        return self._log(verb).read_text()

    def lenet(self, *words: object) -> str:
        """`lenet WORDS` on the laptop."""
        return self.shell(shlex.join(["python", "-m", "tuning.cli", *map(str, words)]))

    @property
    def head(self) -> Host:
        address = self.shell(f"ray get-head-ip {self.file}").split()[-1]
        (found,) = (host for host in self.nodes if host.address == address)
        return found

    def read(self, run: str, name: str) -> Any:
        """A document of a run in the store; None where it is not there."""
        try:
            content = open_storage(self.place).at(run).read(name, limit=1 << 24)
        except FileNotFoundError:
            return None
        return json.loads(content)

    def watch(self) -> subprocess.Popen:
        """A process that prints the time when Ray counts a node less than now."""
        words = (f"{NODE_BIN}/python", "-c", WATCH, len(self.nodes))
        process = subprocess.Popen(
            self.head.command(*words, user=USER, RAY_AUTH_MODE="token"),
            stdout=subprocess.PIPE,
            text=True,
        )
        process.stdout.readline()
        return process

    @property
    def nodes(self) -> list[Host]:
        """The hosts that run."""
        hosts = list(self.lab.hosts.values())
        return [host for host in hosts if host.is_on and host is not self.laptop]

    @property
    def place(self) -> str:
        """Where the runs are."""
        return f"s3://{self.store.bucket}/runs"

    @property
    def data(self) -> str:
        """Where MNIST is."""
        return f"s3://{self.store.bucket}/data/mnist"

    def training(self) -> dict[str, list[Any]]:
        """The processes in which workers of a run are, by host."""
        found = {host.name: training_workers(host.pid) for host in self.nodes}
        return {name: processes for name, processes in found.items() if processes}

    def _log(self, verb: str) -> Path:
        return self.lab.folder / f"ray-{verb}.log"

    def _check_out(self) -> None:
        listed = subprocess.run(
            # Root is not always the owner.
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = self.project / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())

    def _give_credentials(self) -> None:
        """As docs/cluster.md has it: ssh's key, the store's credentials, and Ray's token."""
        ssh_key = self.laptop.path("/root/.ssh/lenet")
        ssh_key.write_bytes(self.lab.key.read_bytes())
        ssh_key.chmod(0o600)
        give_credentials(self.laptop, "/root", self.store, reader=True)
        self.env["AWS_ENDPOINT_URL_S3"] = self.store.endpoint
        self.shell("(umask 077; ray get-auth-token --generate > /dev/null)")


@contextlib.contextmanager
def data_store(folder: Path) -> Iterator[ObjectStore]:
    """An S3 server on the lab's network, where MNIST is, and which this process finds too."""
    with ObjectStore(folder, HERE) as store, mock.patch.dict(os.environ, store.env()):
        subprocess.run(command("data", "stage", f"s3://{store.bucket}/data", "mnist"), check=True)
        yield store


def give_credentials(host: Host, home: str, store: ObjectStore, reader: bool = False) -> None:
    """Puts a store's credentials where any client of a home folder's owner finds them.

    Args:
        host: Where.
        home: The home folder.
        store: The store.
        reader: Those of the one who may only read.
    """
    env = store.env(reader=reader)
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    path = host.path(f"{home}/.aws/credentials")
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text("[default]\n" + "".join(f"{name.lower()} = {env[name]}\n" for name in names))
    owner = path.parents[1].stat()
    for made in (path.parent, path):
        os.chown(made, owner.st_uid, owner.st_gid)


def training(cluster: Launched, name: str, *settings: object) -> list[object]:
    """What follows `ray submit FILE`; by default a run of some fifteen seconds."""
    return [
        *("job/train.py", "--", "--name", name, "--storage", cluster.place),
        *("--data", cluster.data, *(settings or SETTINGS)),
    ]


def check_first_run(cluster: Launched) -> None:
    """A run submitted to a new cluster, as the documents have it, ends in the store."""
    cluster.ray("submit", *training(cluster, "first"))
    (run,) = json.loads(cluster.lenet("runs", "--storage", cluster.place, "--json"))
    assert (run["name"], run["state"]) == ("first", "finished")
    result = cluster.read("first", "result.json")
    assert result["workers"] == WORKERS
    assert result["restarts"] == result["lost_steps"] == 0
    assert result["test_accuracy"] > 0.9
    cluster.ray("exec", "lenet runs --storage $LENET_STORAGE")
    assert "first" in cluster.output("exec")


class Loss:
    """What becomes of a run that loses a host with one of its workers.

    Attributes:
        victim: The host.
        figures: Seconds from the loss until the other worker's attempt had ended (`noticed`), Ray
            counted the node as dead (`dead`), two workers had taken the run up from its checkpoint
            (`again`), and it was at its end (`end`).
    """

    def __init__(self, victim: str) -> None:
        self.victim = victim
        self.figures: dict[str, float] = {}


@contextlib.contextmanager
def losing(cluster: Launched, name: str) -> Iterator[Loss]:
    """Trains a run like the first; in the middle of it the block takes a host away. Afterwards the
    run has to end with the first one's weights."""
    head, watch = cluster.head.name, cluster.watch()
    driver = cluster.start("submit", *training(cluster, name))

    def underway(condition: Callable[[], bool]) -> Callable[[], bool]:
        def is_so() -> bool:
            assert driver.poll() is None, cluster.output("submit")
            return condition()

        return is_so

    # Before that, functions are traced, and workers have minutes to give a sign of life.
    wait_until(underway(lambda: "epoch 1/3  loss" in cluster.output("submit")), "an epoch")
    workers = cluster.training()
    loss = Loss(next(host for host in workers if host != head))
    others = [p for host, found in workers.items() if host != loss.victim for p in found]
    assert others, "both workers are on one host"
    began = time.time()
    yield loss
    wait_until(lambda: not any(map(alive, others)), "the end of the other workers")
    loss.figures["noticed"] = time.time() - began
    loss.figures["dead"] = float(watch.stdout.readline()) - began
    attempt = underway(lambda: (cluster.read(name, "reached.json") or {}).get("restarts") == 1)
    wait_until(attempt, "another attempt")
    loss.figures["again"] = time.time() - began
    assert driver.wait() == 0, cluster.output("submit")
    loss.figures["end"] = time.time() - began
    result = cluster.read(name, "result.json")
    assert result["restarts"] == 1
    assert result["weights_sha256"] == cluster.read("first", "result.json")["weights_sha256"]
