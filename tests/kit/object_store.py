"""A real S3 server on this machine, which can be killed and started again with its data."""

from __future__ import annotations

import json
import random
import secrets
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

HOST = "127.0.0.1"
REGION = "us-east-1"
DOMAIN = "store.test"
POLL_SECONDS = 0.05
START_SECONDS = 60.0
PROBE = "ready"
# Every part of SeaweedFS listens for HTTP, and for gRPC so far above it.
PARTS = ("s3", "master", "volume", "filer", "admin")
GRPC_OFFSET = 10_000
# With the offset still below the ports that Linux gives to outgoing connections.
PORTS = range(10_000, 20_000)


class ObjectStore:
    """SeaweedFS with one bucket, a user who may do everything, and one who may only read.

    Args:
        folder: Keeps the data, the configuration and the server's output in `weed.log`.
        host: The address of this machine that it listens on.
    """

    bucket = "lenet"

    def __init__(self, folder: Path, host: str = HOST) -> None:
        self.folder = folder
        self.host = host
        self.ports = dict(zip(PARTS, free_ports(len(PARTS), host), strict=True))
        self.endpoint = f"http://{host}:{self.ports['s3']}"
        self.process: subprocess.Popen | None = None
        self._admin = (secrets.token_hex(10), secrets.token_hex(20))
        self._reader = (secrets.token_hex(10), secrets.token_hex(20))

    def __enter__(self) -> ObjectStore:
        (self.folder / "data").mkdir(parents=True)
        identities = [
            _identity("admin", self._admin, ["Admin", "Read", "Write", "List", "Tagging"]),
            _identity("reader", self._reader, ["Read", "List"]),
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        try:
            self._start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Ends the server without notice. Its own way to stop takes up to half a minute."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        for port in self.ports.values():
            for number in (port, port + GRPC_OFFSET):
                for left in Path("/tmp").glob(f"seaweedfs-*-{number}.sock"):
                    left.unlink(missing_ok=True)

    def restart(self) -> None:
        """Starts the server again, at the same address and with what it had stored."""
        self.kill()
        self._start()

    def env(self, endpoint: str | None = None, reader: bool = False) -> dict[str, str]:
        """The environment in which any S3 client finds this server.

        Args:
            endpoint: Where it is to be found instead, as behind a proxy.
            reader: Whether to come as the one who may only read.
        """
        key, secret = self._reader if reader else self._admin
        return {
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, endpoint: str | None = None, reader: bool = False, **config: Any) -> Any:
        """A boto3 client that tries once.

        Args:
            endpoint: As in `env`.
            reader: As in `env`.
            config: Fields of botocore's `Config`.
        """
        env = self.env(endpoint, reader)
        return boto3.client(
            "s3",
            endpoint_url=env["AWS_ENDPOINT_URL_S3"],
            region_name=REGION,
            aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
            config=Config(**{"retries": {"total_max_attempts": 1}, **config}),
        )

    def _start(self) -> None:
        with (self.folder / "weed.log").open("a") as log:
            self.process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                # Nothing else: it takes settings and more users from variables and from home.
                env={"HOME": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def _command(self) -> list[str]:
        return [
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            "-logtostderr=true",
            "mini",
            "-dir=data",
            "-s3.config=s3.json",
            f"-bucket={self.bucket}",
            # Buckets have host names below it, too.
            f"-s3.domainName={DOMAIN}",
            # As on S3; by default a bucket that is written to comes into being.
            "-s3.autoCreateBucket=false",
            f"-ip={self.host}",
            f"-ip.bind={self.host}",
            *(f"-{part}.port={port}" for part, port in self.ports.items()),
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _wait(self) -> None:
        """Waits until the server stores something and gives it back. It answers earlier, when it
        does not yet know where the content of its objects is."""
        client = self.client(connect_timeout=2, read_timeout=2)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                client.put_object(Bucket=self.bucket, Key=PROBE, Body=b"ready?")
                client.get_object(Bucket=self.bucket, Key=PROBE)["Body"].read()
                client.delete_object(Bucket=self.bucket, Key=PROBE)
                return
            except (BotoCoreError, ClientError) as error:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    log = (self.folder / "weed.log").read_text()
                    raise RuntimeError(f"no S3 server came up: {error}\n{log[-2000:]}") from error
            time.sleep(POLL_SECONDS)


def free_ports(count: int, host: str = HOST) -> list[int]:
    """Ports that are free at an address, and so are those of their gRPC."""
    # Not the global generator, which tests seed: two of them would choose the same ports.
    candidates = random.SystemRandom().sample(PORTS, len(PORTS))
    free = (p for p in candidates if _is_free(p, host) and _is_free(p + GRPC_OFFSET, host))
    return [next(free) for _ in range(count)]


def _is_free(port: int, host: str) -> bool:
    with socket.socket() as listener:
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def _identity(name: str, key: tuple[str, str], actions: list[str]) -> dict[str, Any]:
    credentials = [{"accessKey": key[0], "secretKey": key[1]}]
    return {"name": name, "credentials": credentials, "actions": actions}
