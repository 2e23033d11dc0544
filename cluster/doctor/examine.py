"""`lenet doctor`: looks at machines and storage before money is spent on them.

All machines are asked the same questions (`facts.py`, `network.py`) in processes there
(`machines.py`); `checks.py` says what to think of the answers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.connection import UnreachableError, connected
from cluster.doctor import checks
from cluster.doctor.facts import code, data, facts, storage_problem, versions
from cluster.doctor.findings import FAIL, OK, CheckReport, Finding
from cluster.doctor.gpus import computes_on, gpus
from cluster.doctor.machines import Machines, RayNodes, ThisMachine
from cluster.doctor.network import all_reduce
from cluster.files.cluster_file import problems
from cluster.tf_config import free_address
from job.config.config import TrainConfig
from job.errors import InputError
from job.runs.folder import absolute
from job.storage.disk import borrowed
from job.storage.open import open_storage

# For each question. The longest, importing TensorFlow, takes 5-10 s where nothing else goes on. For
# GPUs kernels are compiled at their first use, and NCCL is started.
LIMIT_SECONDS = 120.0


def examine_file(path: str) -> Iterator[Finding]:
    """Checks a cluster file, offline.

    Raises:
        InputError: There is no such file.
    """
    # Not `Path.is_file`, which has errors of its own for a name that is too long.
    if not os.path.isfile(path):
        raise InputError("--cluster-file", path, "no such file")
    found = problems(path)
    for problem in found:
        yield Finding(check="cluster file", status=FAIL, text=problem)
    if not found:
        yield Finding(check="cluster file", status=OK, text=f"{path}, offline")


def to_document(found: Sequence[Finding]) -> dict[str, Any]:
    """The findings as JSON."""
    return {
        "ok": not any(finding.is_failure for finding in found),
        "checks": [dataclasses.asdict(finding) for finding in found],
    }


def examine(config: TrainConfig, *, limit: float = LIMIT_SECONDS) -> Iterator[Finding]:
    """Checks what a run with these settings would meet.

    On every node of the cluster at its `address`; without one on this machine, and without Ray.

    Args:
        config: `address`, `storage`, `dataset`, `data` and `device` count.
        limit: Seconds in which each machine has to answer each question.

    Yields:
        Findings, as they are made.

    Raises:
        InputError: A setting is unusable, whatever the machines are like.
    """
    uri, place = absolute(config.storage), config.data and absolute(config.data)
    open_storage(uri)
    if place:
        try:
            open_storage(place)
        except InputError as error:
            raise InputError("--data", error.value, error.problem) from error
    elif config.dataset == "own":
        raise InputError("--dataset", "own", "needs --data")
    with contextlib.ExitStack() as stack:
        machines: Machines
        if config.address is None:
            machines = stack.enter_context(ThisMachine(limit))
        else:
            try:
                stack.enter_context(connected(config.address))
            except UnreachableError as error:
                fix = "start it, or correct the address, the token or the versions"
                yield Finding(check="cluster", status=FAIL, text=str(error), fix=fix)
                return
            machines = RayNodes(limit)
        for part in (
            _from_facts(machines, uri),
            _gpus(machines, config.device),
            _storage(machines, uri),
            _data(machines, config.dataset, place),
            _together(machines),
        ):
            for finding in part:
                yield from machines.lost()
                yield finding
            yield from machines.lost()


def _from_facts(machines: Machines, uri: str) -> Iterator[Finding]:
    found = machines.ask("machine", facts, machines.everyone(uri))
    yield from checks.versions(versions(), {name: one.versions for name, one in found.items()})
    if isinstance(machines, RayNodes):
        yield from checks.code(code(), {name: one.code for name, one in found.items()})
    yield from checks.token(found)
    yield from checks.ports(found)
    yield from checks.disks({name: one.disks for name, one in found.items()})
    if isinstance(machines, RayNodes):
        yield from checks.clocks(machines.clocks())


def _gpus(machines: Machines, device: str) -> Iterator[Finding]:
    found = machines.ask("GPUs", gpus, dict.fromkeys(machines.trainers, (device,)))
    yield from checks.gpus(found, machines.ray_gpus, device)


def _storage(machines: Machines, uri: str) -> Iterator[Finding]:
    if not isinstance(machines, RayNodes):
        found = machines.ask("storage", storage_problem, machines.users(uri))
    elif problem := storage_problem(uri):
        # The driver writes there too.
        found = {"here": problem}
    else:
        with _marked(uri) as marker:
            found = machines.ask("storage", storage_problem, machines.users(uri, marker))
    yield from checks.storage(uri, found)


@contextlib.contextmanager
def _marked(uri: str) -> Iterator[str | None]:
    """Leaves a file in a folder for the block, by which other machines see that it is the same one.

    An object store is, and gets none.
    """
    storage = open_storage(uri)
    if storage.is_remote:
        yield None
        return
    with borrowed(Path(uri)):
        marker = f".doctor-{secrets.token_hex(8)}"
        storage.write(marker, b"")
        try:
            yield marker
        finally:
            storage.delete(marker)


def _data(machines: Machines, dataset: str, place: str | None) -> Iterator[Finding]:
    found = machines.ask("data", data, machines.users(dataset, place))
    yield from checks.data(found, is_named=place is not None)


def _together(machines: Machines) -> Iterator[Finding]:
    """Needs TensorFlow started."""
    trainers = machines.trainers
    if not machines.names:
        return
    said = CheckReport("all-reduce", trainers or ["none"])
    if not trainers:
        fix = "ask again while a run is on the machines that it started"
        said.warn(None, "no node that could hold a worker is up", fix)
    if len(trainers) < 2:
        yield from said.or_ok("one machine trains, it has nobody to wait for")
        return
    kinds = machines.ask("all-reduce", computes_on, dict.fromkeys(trainers, ()))
    if len(set(kinds.values())) > 1:
        # They would wait for each other.
        without = ", ".join(name for name, kind in kinds.items() if kind == "cpu")
        said.fail(None, f"no GPU computes on {without}, but elsewhere", "mend it there first")
        yield from said.or_ok("")
        return
    addresses = machines.ask("all-reduce", free_address, dict.fromkeys(kinds, ()))
    if len(addresses) < 2:
        # Who is left has nobody to add up with; that the others gave no answer is said.
        return
    places = list(addresses.values())
    ranks = {name: (places, rank) for rank, name in enumerate(addresses)}
    yield from checks.all_reduce(machines.ask("all-reduce", all_reduce, ranks))
