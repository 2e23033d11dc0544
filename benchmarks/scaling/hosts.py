"""Times training steps on simulated hosts: bridged network namespaces, each with a worker.

Where the network has a latency or a bandwidth, packets go another way than over the bridge: by
`benchmarks/scaling/relay.py`, which holds each for as long. A change of the network is a change of
routes, so that workers go on while it changes; addresses and connections stay.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.scaling.model import QUIET, Setting
from job.errors import InputError

HERE = Path(__file__).parent
WORKER = "benchmarks.scaling.worker"
INSIDE = "LENET_SCALING"
NETWORK, PREFIX, BRIDGE = "10.77.0", 24, "scaling"
PORT = 7000
WARM_STEPS, REPEATS, REPEAT_SECONDS = 6, 5, 1.3
PINGS = 21
LISTEN_SECONDS = 1.0


def alone(arguments: list[str]) -> int:
    """Runs this program in namespaces of its own. Needs root; returns its exit code.

    They take networks and processes with them when they end.
    """
    return subprocess.call(
        [
            *("setpriv", "--pdeathsig=KILL"),
            *("unshare", "--net", "--mount", "--pid", "--ipc"),
            *("--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
            *("sh", "-euc", 'ip link set lo up; mount -t tmpfs tmpfs /run; exec "$@"', "sh"),
            *(sys.executable, *arguments),
        ],
        env={**os.environ, INSIDE: "1"},
    )


def call(*words: object) -> None:
    """Runs a command. Raises RuntimeError, with what it says, where it fails."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """One of the simulated machines, by its number from 1."""

    number: int

    @property
    def name(self) -> str:
        return f"host{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number}"

    @property
    def port(self) -> str:
        """The bridge's end of its cable."""
        return f"port{self.number}"

    def inside(self, *words: object) -> list[str]:
        """What runs a command there."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def connect(self) -> None:
        """Joins it to the bridge and to its end of the relay, by which nothing goes yet."""
        call("ip", "netns", "add", self.name)
        ends = ("type", "veth", "peer", "name", "eth0", "netns", self.name)
        call("ip", "link", "add", self.port, *ends)
        call("ip", "link", "set", self.port, "master", BRIDGE, "up")
        call("ip", "link", "set", f"wire{self.number}", "netns", self.name)
        mac = f"02:00:00:00:00:{self.number:02x}"
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{self.address}/{PREFIX}", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", f"wire{self.number}", "address", mac, "up"),
        ):
            call(*self.inside("ip", *words))

    def set_way(self, relayed: bool) -> None:
        """Which way its packets go."""
        device = f"wire{self.number}" if relayed else "eth0"
        route = (f"{NETWORK}.0/{PREFIX}", "dev", device, "src", self.address)
        call(*self.inside("ip", "route", "replace", *route))


class Hosts:
    """Simulated machines on one network, while the block runs.

    Args:
        count: How many.

    Raises:
        RuntimeError: This process is not in namespaces of its own.
    """

    def __init__(self, count: int) -> None:
        if INSIDE not in os.environ:
            raise RuntimeError("this would change the machine's network; call `alone`")
        self.hosts = [Host(number=number) for number in range(1, 1 + count)]

    def __enter__(self) -> Hosts:
        call("ip", "link", "add", BRIDGE, "type", "bridge")
        call("ip", "link", "set", BRIDGE, "up")
        self._relay = subprocess.Popen(
            [sys.executable, HERE / "relay.py", str(len(self.hosts))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._relay.stdout.readline() != "ready\n":
            raise RuntimeError("the relay did not start")
        for host in self.hosts:
            host.connect()
        self._set_relay(0.0, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.stdin.close()
        self._relay.wait()
        for host in self.hosts:
            # With its namespace it would go some time later, and the next one has the same name.
            call("ip", "link", "delete", host.port)
            call("ip", "netns", "delete", host.name)
        call("ip", "link", "delete", BRIDGE)

    def set_network(self, setting: Setting) -> None:
        self._set_relay(setting.latency, setting.bandwidth)
        for host in self.hosts:
            host.set_way(setting.relayed)

    def _set_relay(self, latency: float, bandwidth: float | None) -> None:
        self._relay.stdin.write(f"{latency} {1 / bandwidth if bandwidth else 0.0}\n")
        self._relay.stdin.flush()

    def round_trip(self) -> float:
        """The median time in seconds that a byte takes to the second host and back by TCP."""
        first, second = self.hosts[:2]
        echo = subprocess.Popen(
            second.inside(sys.executable, HERE / "echo.py", "echo", second.address),
            stdout=subprocess.PIPE,
        )
        echo.stdout.readline()
        ask = first.inside(sys.executable, HERE / "echo.py", str(PINGS), second.address)
        said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        echo.wait()
        return statistics.median(json.loads(said))


class Workers:
    """The processes that train, one on each host with one thread, while the block runs."""

    def __init__(self, hosts: Hosts, model: str) -> None:
        self._hosts, self._model = hosts.hosts, model
        self._steps = 0

    def __enter__(self) -> Workers:
        addresses = [f"{host.address}:{PORT}" for host in self._hosts]
        self._processes = []
        for rank, host in enumerate(self._hosts):
            task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
            self._processes.append(
                subprocess.Popen(
                    host.inside(sys.executable, "-m", WORKER, self._model, len(addresses), rank),
                    env={**os.environ, "TF_CONFIG": json.dumps(task)},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.stdin.close()
        for process in self._processes:
            process.wait()

    def seconds(self, batch: int, steps: int) -> float:
        """How long a step takes the first worker, on average over `steps` of `batch` images."""
        request = json.dumps({"batch": batch, "steps": steps, "first": self._steps})
        self._steps += steps
        for process in self._processes:
            process.stdin.write(request + "\n")
            process.stdin.flush()
        said = [process.stdout.readline() for process in self._processes]
        if not all(said):
            raise RuntimeError(f"a worker of {self._model} ended")
        return float(said[0]) / steps

    def warm(self, batch: int) -> None:
        """Trains until functions are compiled and connections made."""
        self.seconds(batch, WARM_STEPS)

    def measure(self, batch: int) -> list[float]:
        """Seconds of a step, several times over."""
        guess = self.seconds(batch, WARM_STEPS)
        steps = max(WARM_STEPS // 2, round(REPEAT_SECONDS / guess))
        return [self.seconds(batch, steps) for _ in range(REPEATS)]


def others() -> float:
    """How many processors anything uses, now that the workers use none."""
    before = _ticks()
    time.sleep(LISTEN_SECONDS)
    used = _ticks() - before
    return used / os.sysconf("SC_CLK_TCK") / LISTEN_SECONDS


def _ticks() -> int:
    """That this machine's processors were in use, or taken from it, since it was started."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return user + nice + system + irq + softirq + steal


def measured(hosts: Hosts, workers: Workers, setting: Setting) -> dict[str, Any]:
    """One point: the setting, and what was found with it.

    `seconds` of a step, the `round_trip`, and how many processors `others` used before or after.
    Raises InputError where these are too many.
    """
    point = dataclasses.asdict(setting)
    if setting.workers > 1:
        hosts.set_network(setting)
        point["round_trip"] = hosts.round_trip()
    workers.warm(setting.batch)
    before = others()
    point["seconds"] = workers.measure(setting.batch)
    point["others"] = max(before, others())
    check_quiet(point["others"])
    return point


def check_quiet(used: float) -> None:
    """Raises InputError where other programs take processors from a measurement."""
    if used > QUIET:
        problem = "processors are used by other programs; measure when nothing else runs"
        raise InputError("others", round(used, 2), problem)
