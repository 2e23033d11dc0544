"""A network of given latency and bandwidth between simulated hosts: Ethernet frames that come late.

    python -m benchmarks.scaling.relay HOSTS     # one network device for each, wire1, wire2, …

For kernels that have no `netem`. The devices are TAPs, to be moved into the hosts' namespaces; what
a host sends is read here, and written to the host that it is for when it has arrived. TCP sees
nothing but a longer way: no connection ends here, unlike at a proxy. Frames keep their virtio
header, so that the kernel may pass 64 kB at once instead of 1.5 kB (the kernel's
Documentation/networking/tuntap.rst).

The last byte of a device's hardware address is its number. Lines on stdin set the network: seconds
that a frame is under way, and seconds that a host takes to send a byte.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import select
import struct
import sys
import time

# From linux/if_tun.h and linux/virtio_net.h.
TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
TUN_F_CSUM, TUN_F_TSO4 = 0x01, 0x02
HEADER = 10
LARGEST = HEADER + 14 + 65536
# Frames taken from one host before the others have their turn.
AT_ONCE = 16


def wire(number: int) -> int:
    """The file descriptor of a new device."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    name = f"wire{number}".encode()
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name, IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4)
    return tap


def receivers(frame: bytes, sender: int, taps: dict[int, int]) -> list[int]:
    """The devices that a frame is for, of `taps` by their numbers."""
    is_for_all = frame[HEADER] & 1
    if is_for_all:
        return [tap for number, tap in taps.items() if number != sender]
    number = frame[HEADER + 5]
    return [taps[number]] if number in taps else []


def frames(tap: int) -> list[bytes]:
    """What waits at a device, some of it."""
    found = []
    while len(found) < AT_ONCE:
        try:
            found.append(os.read(tap, LARGEST))
        except BlockingIOError:
            break
    return found


def network() -> tuple[float, float]:
    """What a line on stdin sets; raises EOFError where there is none."""
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    latency, byte = map(float, line.split())
    return latency, byte


def relay(taps: dict[int, int], latency: float, byte: float) -> None:
    """Passes frames on until stdin ends, at first with this latency and time for a byte."""
    numbers = {tap: number for number, tap in taps.items()}
    # Until when each host is busy sending what it sent already.
    busy = dict.fromkeys(taps.values(), 0.0)
    # By arrival; frames of the same moment in their order.
    under_way: list[tuple[float, int, list[int], bytes]] = []
    order = itertools.count()
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        readable, _, _ = select.select([*numbers, sys.stdin], [], [], wait)
        now = time.monotonic()
        for source in readable:
            if source is sys.stdin:
                try:
                    latency, byte = network()
                except EOFError:
                    return
                continue
            for frame in frames(source):
                busy[source] = max(now, busy[source]) + byte * (len(frame) - HEADER)
                targets = receivers(frame, numbers[source], taps)
                arrival = busy[source] + latency
                heapq.heappush(under_way, (arrival, next(order), targets, frame))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, targets, frame = heapq.heappop(under_way)
            for target in targets:
                os.write(target, frame)


def main() -> None:
    taps = {number: wire(number) for number in range(1, 1 + int(sys.argv[1]))}
    print("ready", flush=True)
    # A frame that is due goes before the workers' computations, or the delay would be theirs.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    # By the first line, the devices are where they belong; to one that is off nothing can be sent.
    relay(taps, *network())


if __name__ == "__main__":
    main()
