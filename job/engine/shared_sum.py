"""Gradients of workers on one machine, added up in memory that they share.

TensorFlow's collectives go through gRPC, on one machine too: 10 ms for LeNet5's 1.2 MB, in a step
that computes for 12 ms. Here each worker copies its gradients to where the others can read them,
waits until all have, and adds them up for itself, which takes a millisecond at most
(benchmarks.speed.collectives). All of them add in the same order, so they get the same bits.

The memory has no name and the sockets no file, so that nothing is left of a worker that dies:
memfd_create(2), unix(7) on abstract addresses and on SCM_RIGHTS.
"""

from __future__ import annotations

import contextlib
import json
import math
import mmap
import os
import socket
import struct
import sys
import time
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

# A worker writes into one place while a slower one may still read the other.
PLACES = 2
# Waiting so long without sleep costs nothing but a processor that has nothing else to do.
SPIN_SECONDS = 0.002


class SharedSum:
    """Sums float32 arrays over the processes of one machine that train together.

    All of them have to be made before the first one may `connect`.

    Args:
        addresses: HOST:PORT of each process by its rank; they serve as names.
        rank: This process' number.
    """

    def __init__(self, addresses: Sequence[str], rank: int) -> None:
        self._addresses, self._rank = addresses, rank
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(_name(addresses[rank]))
        self._listener.listen(len(addresses))
        self._peers: list[socket.socket] = []
        self._places: list[list[list[np.ndarray]]] = []
        self._calls = 0

    def connect(self, shapes: Sequence[Sequence[int]]) -> None:
        """Meets the others and shares memory with them.

        Args:
            shapes: Of the arrays that will be added up, the same in all processes.

        Raises:
            OSError: Another process is not there, or not this user's.
        """
        world = len(self._addresses)
        sizes = [math.prod(shape) for shape in shapes]
        length = PLACES * world * sum(sizes) * np.dtype(np.float32).itemsize
        for address in self._addresses[: self._rank]:
            self._peers.append(socket.socket(socket.AF_UNIX))
            self._peers[-1].connect(_name(address))
        while len(self._peers) < world - 1:
            self._peers.append(self._listener.accept()[0])
        self._listener.close()
        for peer in self._peers:
            _check_owner(peer)

        if self._rank == 0:
            descriptor = os.memfd_create("gradients")
            os.ftruncate(descriptor, length)
            for peer in self._peers:
                socket.send_fds(peer, [b"m"], [descriptor])
        else:
            _, (descriptor,), _, _ = socket.recv_fds(self._peers[0], 1, 1)
        memory = np.frombuffer(mmap.mmap(descriptor, length), np.float32)
        os.close(descriptor)
        edges = list(pairwise(accumulate(sizes, initial=0)))
        self._places = [
            [
                [part[a:b].reshape(shape) for (a, b), shape in zip(edges, shapes, strict=True)]
                for part in place
            ]
            for place in memory.reshape(PLACES, world, -1)
        ]

    def __call__(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """The sums of the arrays that all processes call it with, which have to do so equally
        often. Raises ConnectionError when another one has ended."""
        place = self._places[self._calls % PLACES]
        self._calls += 1
        for mine, array in zip(place[self._rank], arrays, strict=True):
            np.copyto(mine, array)
        # Whoever has heard of all others knows that they are done with the place before this one.
        for peer in self._peers:
            peer.send(b"w")
        for peer in self._peers:
            if not _heard(peer):
                raise ConnectionError("a worker on this machine has ended")
        first, second, *others = place
        sums = [
            np.add(one, other, out=np.empty_like(one))
            for one, other in zip(first, second, strict=True)
        ]
        for other in others:
            for total, array in zip(sums, other, strict=True):
                total += array
        return sums


def shared_sum() -> SharedSum | None:
    """The sum over the workers that `TF_CONFIG` names, if all of them are on this machine. Call it
    before the strategy is made, which waits until all workers have come so far."""
    config = json.loads(os.environ.get("TF_CONFIG", "{}"))
    addresses = config.get("cluster", {}).get("worker", [])
    hosts = {address.rpartition(":")[0] for address in addresses}
    if len(addresses) < 2 or len(hosts) > 1 or sys.platform != "linux":
        return None
    return SharedSum(addresses, config["task"]["index"])


def _heard(peer: socket.socket) -> bytes:
    """Waits for a byte; nothing once the peer has ended.

    At first without sleep, because the others are late by tenths of a millisecond and waking a
    processor takes as long. Whoever else wants to compute goes first.
    """
    patience = time.perf_counter() + SPIN_SECONDS
    while time.perf_counter() < patience:
        with contextlib.suppress(BlockingIOError):
            return peer.recv(1, socket.MSG_DONTWAIT)
        os.sched_yield()
    return peer.recv(1)


def _name(address: str) -> str:
    # Abstract: seen in this network namespace only, as the address itself.
    return f"\0lenet/{address}"


def _check_owner(peer: socket.socket) -> None:
    """Raises PermissionError if a process of another user is at the other end."""
    credentials = struct.Struct("3i")
    told = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    _, user, _ = credentials.unpack(told)
    if user != os.geteuid():
        raise PermissionError(f"a process of user {user} poses as a worker on this machine")
