"""How TensorFlow learns where the workers are (format: its guide on multi-worker training)."""

from __future__ import annotations

import json
import os
import socket


def free_address() -> str:
    """This node's address with a port that is free."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        # Another process may take the port before TensorFlow does; the attempt then fails and is
        # made again with other ports.
        return f"{ray.util.get_node_ip_address()}:{probe.getsockname()[1]}"


def set_tf_config(addresses: list[str], rank: int) -> None:
    """Tells this process about the workers. Call it before the strategy is made."""
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    )
    # Where http_proxy is set, gRPC asks the proxy for the neighbours, and waits for ever.
    hosts = {address.rpartition(":")[0] for address in addresses}
    os.environ["no_grpc_proxy"] = ",".join(hosts)  # noqa: SIM112  gRPC's own spelling
