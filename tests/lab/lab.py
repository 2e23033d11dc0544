"""A laboratory of simulated hosts on this machine: each has network, processes, accounts, home
folders and temporary files of its own, and an sshd. They share a network; no route leads out of it.

It is made of Linux namespaces, inside of namespaces that `e2e.py` makes for the whole test
run: whatever happens to the run, the kernel takes everything away with its first process.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

# Set by tests/lab/e2e.py where this process is alone in its namespaces.
INSIDE = "LENET_LAB"
# That of a default VPC, so that instances of a cloud fit in.
NETWORK = "172.31"
# Where this process is found, and the servers that it starts for the hosts.
HERE = f"{NETWORK}.255.254"
BRIDGE = "lab"
USER, USER_ID = "lenet", 1500
SSH_PORT = 22
START_SECONDS = 20.0
POLL_SECONDS = 0.05
# Of a host's own; the rest of the file system is the machine's.
OWN_FOLDERS = ("home", "root", "tmp")
OWN_FILES = {
    "hosts": "127.0.0.1 localhost\n{address} {name}\n",
    # `*`: no password, but not locked either, which sshd would refuse.
    "shadow": "root:*:1::::::\nsshd:*:1::::::\n{user}:*:1::::::\n",
    "passwd": "root:x:0:0::/root:/bin/bash\nsshd:x:102:65534::/run/sshd:/usr/sbin/nologin\n"
    "nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
    "{user}:x:{id}:{id}::/home/{user}:/bin/bash\n",
    "group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n{user}:x:{id}:\n",
    "resolv.conf": "",
}
HOST_KEY = "/run/sshd/key"
SSHD = (
    *("/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", "-h", HOST_KEY),
    *("-o", "UsePAM=no", "-o", "PasswordAuthentication=no", "-o", "UseDNS=no"),
)


@dataclasses.dataclass(frozen=True)
class Bind:
    """A folder of this machine that a host sees, read-only, at a path below its own folders."""

    source: Path
    target: Path


class Host:
    """A simulated machine.

    Args:
        name: Also its host name.
        address: On the lab's network.
        folder: Keeps its own folders, and sshd's output in `sshd.log`.
        binds: What it sees of this machine below its own folders.
    """

    def __init__(self, name: str, address: str, folder: Path, binds: tuple[Bind, ...] = ()) -> None:
        self.name, self.address, self.folder, self.binds = name, address, folder, binds
        self.link = "-".join(["lab", *address.split(".")[2:]])
        self.process: subprocess.Popen | None = None
        self.pid = 0

    @property
    def is_on(self) -> bool:
        return self.process is not None

    def path(self, inside: str | Path) -> Path:
        """Where this machine finds a file of the host's own folders."""
        return self.folder / str(inside).lstrip("/")

    def start(self, key: str) -> None:
        """Boots it as far as it needs no network.

        Args:
            key: The public key that its accounts accept.
        """
        self._make_folders(key)
        with (self.folder / "sshd.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--net", "--mount", "--pid", "--uts", "--ipc"),
                    *("--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
                    *("sh", "-euc", self._boot()),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.name}: {(self.folder / 'sshd.log').read_text()}")
        unshare = self.process.pid
        (self.pid,) = map(int, Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split())

    def connect(self) -> None:
        """Plugs its cable in, and lets it go on to sshd. Raises RuntimeError where that fails."""
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.pid)
        ip("link", "set", self.link, "master", BRIDGE, "up")
        self.run("ip", "address", "add", f"{self.address}/16", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")
        # Nothing answers there, but Ray finds out by it which address is its own.
        self.run("ip", "route", "add", "default", "via", HERE)
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.address, SSH_PORT):
            if self.process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "sshd.log").read_text()
                raise RuntimeError(f"{self.name}: no sshd came up: {log}")
            time.sleep(POLL_SECONDS)

    def kill(self) -> None:
        """Ends it, and with it all of its processes."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
            subprocess.run(["ip", "link", "delete", self.link], capture_output=True)

    def command(self, *words: object, user: str = "root", **env: str) -> list[str]:
        """What runs a command on the host, past sshd, in a home folder.

        Args:
            words: The command; without a shell.
            user: The account.
            env: Its environment, beside HOME, PATH and LANG.
        """
        home = "/root" if user == "root" else f"/home/{user}"
        env = {"HOME": home, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **env}
        return [
            *("nsenter", f"--target={self.pid}", "--net", "--mount", "--pid", "--uts", "--ipc"),
            *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"),
            *("env", "-i", f"--chdir={home}", *(f"{name}={value}" for name, value in env.items())),
            *map(str, words),
        ]

    def run(self, *words: object, user: str = "root", **env: str) -> str:
        """Runs a command on the host; returns its output. Raises RuntimeError where it fails."""
        done = subprocess.run(
            self.command(*words, user=user, **env), capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"{self.name}: {words[0]} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout

    def _make_folders(self, key: str) -> None:
        for name in OWN_FOLDERS:
            (self.folder / name).mkdir(parents=True)
            (self.folder / name).chmod(0o1777 if name == "tmp" else 0o755)
        (self.folder / "etc").mkdir()
        names = {"name": self.name, "address": self.address, "user": USER, "id": USER_ID}
        for name, content in OWN_FILES.items():
            (self.folder / "etc" / name).write_text(content.format(**names))
        for home, owner in ((self.path("/root"), 0), (self.path(f"/home/{USER}"), USER_ID)):
            shutil.copytree("/etc/skel", home, dirs_exist_ok=True)
            (home / ".ssh").mkdir(mode=0o700)
            (home / ".ssh" / "authorized_keys").write_text(key)
            for path in (home, *home.rglob("*")):
                os.chown(path, owner, owner)

    def _boot(self) -> str:
        """The commands of its first process."""
        commands: list[list[object]] = [
            ["hostname", self.name],
            *(["ip", "link", "set", "lo", "up"], ["mount", "-t", "tmpfs", "tmpfs", "/run"]),
            ["mkdir", "/run/sshd"],
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", HOST_KEY],
        ]
        for bind in self.binds:
            target = self.path(bind.target)
            target.mkdir(parents=True)
            commands.append(["mount", "--bind", bind.source, target])
            commands.append(["mount", "-o", "remount,bind,ro", target])
        for name in OWN_FILES:
            commands.append(["mount", "--bind", self.path(f"etc/{name}"), f"/etc/{name}"])
        # The last one may hide this folder.
        for name in sorted(OWN_FOLDERS, key=lambda name: self.folder.is_relative_to(f"/{name}")):
            commands.append(["mount", "--rbind", self.path(name), f"/{name}"])
        commands.append(["mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", "/dev/shm"])
        lines = [shlex.join(map(str, command)) for command in commands]
        sshd = shlex.join([*SSHD, "-o", f"ListenAddress={self.address}"])
        return "\n".join([*lines, "cd /", "echo ready", "read go", f"exec {sshd}"])


class Lab:
    """Hosts on one network, while the block runs.

    Args:
        folder: Keeps the hosts' folders and the ssh key, `key`, that all of them accept.
        hosts: What each host sees of this machine, by its name; addresses are given in turn.

    Raises:
        RuntimeError: This process is not in namespaces of its own.
    """

    def __init__(self, folder: Path, hosts: dict[str, tuple[Bind, ...]]) -> None:
        if INSIDE not in os.environ:
            raise RuntimeError("the lab would change this machine's network; call `make e2e`")
        self.folder = folder
        self.key = folder / "key"
        self.hosts = {
            name: Host(name, f"{NETWORK}.255.{number}", folder / name, binds)
            for number, (name, binds) in enumerate(hosts.items(), 1)
        }

    def __enter__(self) -> Lab:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True)
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            ip("address", "add", f"{HERE}/16", "dev", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for host in self.hosts.values():
                host.start(self.key.with_suffix(".pub").read_text())
                host.connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts.values():
            host.kill()
        subprocess.run(["ip", "link", "delete", BRIDGE], capture_output=True)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def add(
        self,
        name: str,
        address: str,
        binds: tuple[Bind, ...],
        key: str,
        prepare: Callable[[Host], None],
    ) -> Host:
        """Another host, whose folders are prepared before it is on the network."""
        host = Host(name, address, self.folder / name, binds)
        self.hosts[name] = host
        host.start(key)
        prepare(host)
        host.connect()
        return host

    def cut(self, name: str) -> None:
        """Pulls a host's cable out: what is sent to it is lost, without a word."""
        ip("link", "set", self.hosts[name].link, "down")

    def mend(self, name: str) -> None:
        """Plugs it in again."""
        ip("link", "set", self.hosts[name].link, "up")


def ip(*words: object) -> None:
    """Changes this process' network. Raises RuntimeError, with what `ip` says, where it fails."""
    done = subprocess.run(["ip", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"ip {' '.join(map(str, words))}: {done.stderr.strip()}")


def answers(address: str, port: int) -> bool:
    """Whether something listens there."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
