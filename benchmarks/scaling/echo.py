"""How long a byte takes to another host and back, by TCP.

python -m benchmarks.scaling.echo echo ADDRESS     # answers one connection
python -m benchmarks.scaling.echo COUNT ADDRESS    # prints seconds, as a JSON list
"""

from __future__ import annotations

import json
import socket
import sys
import time

PORT = 7999


def echo(address: str) -> None:
    with socket.create_server((address, PORT)) as server:
        print("ready", flush=True)
        connection, _ = server.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while byte := connection.recv(1):
                connection.sendall(byte)


def ask(address: str, count: int) -> list[float]:
    found = []
    with socket.create_connection((address, PORT)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            began = time.perf_counter()
            connection.sendall(b"?")
            connection.recv(1)
            found.append(time.perf_counter() - began)
    return found


if __name__ == "__main__":
    if sys.argv[1] == "echo":
        echo(sys.argv[2])
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[1]))))
