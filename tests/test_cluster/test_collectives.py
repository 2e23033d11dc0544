"""What joins the workers: TensorFlow's collectives, between real processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

WORKER = """
import sys
from cluster.tf_config import set_tf_config
set_tf_config(sys.argv[2:], int(sys.argv[1]))
from job.engine.runtime import distribution, start_tensorflow
start_tensorflow(threads=1)
strategy = distribution(2)
import tensorflow as tf

@tf.function
def total(value):
    local = strategy.run(tf.identity, args=(value,))
    return strategy.reduce(tf.distribute.ReduceOp.SUM, local, axis=None)

print(total(tf.constant(1.0)).numpy(), flush=True)
while True:
    total(tf.constant(1.0))
"""


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.timeout(120)
def test_workers_ask_no_proxy_for_each_other_and_the_end_of_one_is_an_error_of_the_other():
    addresses = [free_address(), free_address()]
    proxy = f"http://{free_address()}"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), *addresses],
            env={**os.environ, "http_proxy": proxy, "https_proxy": proxy},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["2.0\n"] * 2
        workers[1].kill()
        _, said = workers[0].communicate()
        assert workers[0].returncode == 1
        assert "UnavailableError" in said
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
