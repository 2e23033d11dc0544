"""A cluster of the lab's hosts, launched by a user from the lab's laptop."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from e2e import ROOT, VENV, WORK
from lab import OWN_FOLDERS, USER, USER_ID, Bind, Host, Lab
from nodes import training_workers
from object_store import ObjectStore

from cluster.storage import open_storage

LAPTOP = "laptop"
PROJECT = "/root/lenet"
NODE_BINDS = (Bind(WORK / VENV, Path("/") / VENV),)
NODE_BIN = f"/{VENV}/bin"
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
        lab: Has a laptop, which gets the project, and the nodes.
        store: Where the runs are; the nodes' accounts get its credentials.
        file: The cluster file, from the project's folder.
        edits: What the user changes in it.
        env: More of the laptop's environment.
    """

    def __init__(
        self, lab: Lab, store: ObjectStore, file: str, edits: dict[str, str], **env: str
    ) -> None:
        self.lab, self.store, self.file = lab, store, file
        self.laptop = lab[LAPTOP]
        self.nodes = [host for host in lab.hosts.values() if host is not self.laptop]
        self.env = {"PATH": f"{sys.prefix}/bin:/usr/sbin:/usr/bin:/sbin:/bin", **env}
        # Of each command that the user typed, by its verb.
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

    def ray(self, verb: str, *words: object) -> str:
        """`ray VERB FILE WORDS` on the laptop; returns its output, and keeps it and the time.
        Raises AssertionError, with the output, where it fails."""
        began = time.monotonic()
        process = self.start(verb, *words)
        code = process.wait()
        self.seconds[verb] = time.monotonic() - began
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

    def on_node(self, host: Host, *words: object, **env: str) -> str:
        """Runs a command of the nodes' environment on one of them, as their user."""
        path = f"{NODE_BIN}:/usr/bin:/bin"
        return host.run(*words, user=USER, **{"PATH": path, **env})

    def read(self, run: str, name: str) -> Any:
        """A document of a run in the store; None where it is not there."""
        try:
            content = open_storage(self.place).at(run).read(name, limit=1 << 24)
        except FileNotFoundError:
            return None
        return json.loads(content)

    @property
    def place(self) -> str:
        """Where the runs are."""
        return f"s3://{self.store.bucket}/runs"

    def training(self) -> dict[str, list[Any]]:
        """The processes in which workers of a run are, by host."""
        found = {host.name: training_workers(host.pid) for host in self.nodes}
        return {name: processes for name, processes in found.items() if processes}

    def _log(self, verb: str) -> Path:
        return self.lab.folder / f"ray-{verb}.log"

    def _check_out(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
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
        env = self.store.env()
        text = "[default]\n" + "".join(
            f"{name.lower()} = {env[name]}\n"
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        )
        for host in self.nodes:
            _write_secret(host.path(f"/home/{USER}/.aws/credentials"), text, USER_ID)
        _write_secret(self.laptop.path("/root/.aws/credentials"), text, 0)
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION"):
            self.env[name] = env[name]
        self.shell("(umask 077; ray get-auth-token --generate > /dev/null)")


def _write_secret(path: Path, text: str, owner: int) -> None:
    path.parent.mkdir()
    path.touch(mode=0o600)
    path.write_text(text)
    for made in (path.parent, path):
        os.chown(made, owner, owner)
