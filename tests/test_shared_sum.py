"""Gradients added up in shared memory: real processes, which may be slow, die or be strangers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from job.engine.shared_sum import SharedSum, shared_sum

HERE = Path(__file__).parent
CALLS = 150
# The others wait for a line on stdin before they connect, when all of them listen.
MEMBER = """
import os, sys
import numpy as np
from job.engine.shared_sum import SharedSum

rank, calls = int(sys.argv[1]), int(sys.argv[2])
total = SharedSum(sys.argv[3:], rank)
np.random.default_rng(0)
os.seteuid(int(os.environ.get("MEMBER_USER", os.geteuid())))
print("listens", flush=True)
sys.stdin.readline()
shapes = [(300, 700), (5,), ()]
total.connect(shapes)

def arrays(rank, call):
    random = np.random.default_rng([rank, call])
    return [random.standard_normal(shape, np.float32) for shape in shapes]

# Made before, so that the calls follow each other as fast as they can.
world, mine = len(sys.argv) - 3, [arrays(rank, call) for call in range(calls)]
sums = [total(*one) for one in mine]
for call, summed in enumerate(sums):
    wanted = arrays(0, call)
    for other in range(1, world):
        wanted = [a + b for a, b in zip(wanted, arrays(other, call))]
    for array, right in zip(summed, wanted):
        assert array.tobytes() == right.tobytes(), f"call {call}"
print("done", flush=True)
"""


def free_address(host: str = "127.0.0.1") -> str:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"


class Members:
    """Processes that add up arrays, and check each sum to the bit."""

    def __init__(self, calls: list[int], users: dict[int, int] | None = None) -> None:
        addresses = [free_address() for _ in calls]
        self.all = [
            subprocess.Popen(
                [sys.executable, "-c", MEMBER, str(rank), str(count), *addresses],
                **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
                text=True,
                cwd=HERE.parent,
                env={**os.environ, "MEMBER_USER": str((users or {}).get(rank, os.geteuid()))},
            )
            for rank, count in enumerate(calls)
        ]

    def __enter__(self) -> list[tuple[int, str]]:
        """Exit code and last line of each."""
        for member in self.all:
            assert member.stdout.readline() == "listens\n", member.stderr.read()
        for member in self.all:
            member.stdin.write("\n")
            member.stdin.flush()
        ended = []
        for member in self.all:
            out, err = member.communicate()
            ended.append((member.returncode, (out + err).splitlines()[-1]))
        return ended

    def __exit__(self, *_: object) -> None:
        for member in self.all:
            if member.poll() is None:
                member.kill()
                member.wait()


@pytest.mark.parametrize("world", [2, 3])
def test_everyone_gets_the_sum_in_the_order_of_ranks(world):
    with Members([CALLS] * world) as ended:
        assert ended == [(0, "done")] * world


def test_the_end_of_one_is_an_error_of_the_others():
    with Members([CALLS, 10, CALLS]) as ended:
        assert ended[1] == (0, "done")
        for rank in (0, 2):
            code, said = ended[rank]
            assert (code, said.partition(":")[0]) in [
                (1, "ConnectionError"),
                (1, "ConnectionResetError"),
                (1, "BrokenPipeError"),
            ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_another_users_process_gets_no_memory():
    with Members([1, 1], users={1: 65534}) as ended:
        assert ended[0][0] == 1
        assert ended[0][1] == (
            "PermissionError: a process of user 65534 poses as a worker on this machine"
        )
        assert ended[1][0] == 1


def test_a_name_is_taken_once():
    address = free_address()
    first = SharedSum([address, "b:1"], 0)
    with pytest.raises(OSError, match="in use"):
        SharedSum([address, "b:1"], 0)
    del first


@pytest.mark.parametrize(
    ("workers", "shares"),
    [
        (["127.0.0.1:{}", "127.0.0.1:{}"], True),
        (["127.0.0.1:{}", "127.0.0.2:{}"], False),
        (["127.0.0.1:{}"], False),
    ],
)
def test_memory_is_shared_where_all_workers_are_on_one_machine(workers, shares, monkeypatch):
    addresses = [one.format(free_address().partition(":")[2]) for one in workers]
    config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    assert (shared_sum() is not None) == shares
    monkeypatch.delenv("TF_CONFIG")
    assert shared_sum() is None


# What each of two workers does; prints a digest of its weights.
WORKER = """
import json, os, sys
from job.engine.runtime import distribution, start_tensorflow
from job.engine.shared_sum import shared_sum

start_tensorflow(threads=1)
shared = shared_sum()
strategy = distribution(2)
from job.config.config import resolve
from job.data.catalogue import CATALOGUE
from job.data.splits import training_splits
from job.data.sources import obtain
from job.engine.device_split import DeviceSplit
from job.engine.engine import Engine
from job.engine.randomness import batches, example_order
from job.runs.state import sha256_of

train, _ = training_splits(obtain("mnist"), CATALOGUE["mnist"], 200)
config = resolve({"model": "ffnn"})
rank = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
engine = Engine(
    config, total_steps=9, strategy=strategy, rank=rank, world=2, shared_sum=shared
)
engine.train_span(DeviceSplit.load(train), batches(example_order(1, 0, 200), 40), 0)
print(shared is not None, sha256_of(engine.weights().values()))
"""


def test_shared_memory_and_network_give_the_same_bits():
    """Two summands leave nothing to the order of additions. The ring serves clusters."""
    workers = []
    for hosts in (("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "127.0.0.2")):
        cluster = {"worker": [free_address(host) for host in hosts]}
        for rank in range(2):
            task = {"cluster": cluster, "task": {"type": "worker", "index": rank}}
            workers.append(
                subprocess.Popen(
                    [sys.executable, "-c", WORKER],
                    env={**os.environ, "TF_CONFIG": json.dumps(task)},
                    **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
                    text=True,
                    cwd=HERE.parent,
                )
            )
    try:
        said = [worker.communicate() for worker in workers]
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    shared, digests = zip(*(out.split() for out, _ in said), strict=True)
    assert shared == ("True", "True", "False", "False")
    assert len(set(digests)) == 1
