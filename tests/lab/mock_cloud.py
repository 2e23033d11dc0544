"""EC2, as the lab plays it: moto keeps the books, and every instance in them is a host of the lab,
for as long as it is not terminated."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import boto3

from tests.kit.object_store import ObjectStore
from tests.lab.e2e import ROOT
from tests.lab.lab import HERE, Bind, Host, Lab, answers

REGION = "us-west-2"
PORT = 5000
POLICIES = ROOT / "cluster" / "iam"
POLL_SECONDS = 0.2
START_SECONDS = 60.0
ALIVE = ("pending", "running")


class MockCloud:
    """An account, with what docs/cluster.md has its administrator make, while the block runs.

    Args:
        lab: Its network is the account's.
        store: Plays S3.
        folder: Keeps moto's output, `moto.log`.
        binds: What instances have on their disk.
        boot: Is called with each new host before it is on the network.
    """

    endpoint = f"http://{HERE}:{PORT}"

    def __init__(
        self,
        lab: Lab,
        store: ObjectStore,
        folder: Path,
        binds: tuple[Bind, ...],
        boot: Callable[[Host], None],
    ) -> None:
        self.lab, self.store, self.folder = lab, store, folder
        self.binds, self.boot = binds, boot
        self.hosts: dict[str, Host] = {}
        self._is_over = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._play, name="cloud", daemon=True)

    def __enter__(self) -> MockCloud:
        try:
            self._begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._moto.kill()
        self._moto.wait()

    def _begin(self) -> None:
        with (self.folder / "moto.log").open("w") as log:
            self._moto = subprocess.Popen(
                [Path(sys.prefix) / "bin" / "moto_server", "--host", HERE, "--port", str(PORT)],
                stdout=log,
                stderr=log,
                env={
                    **os.environ,
                    "MOTO_ENABLE_RECORDING": "1",
                    "MOTO_RECORDER_FILEPATH": str(self.folder / "requests"),
                },
            )
        deadline = time.monotonic() + START_SECONDS
        while not answers(HERE, PORT):
            if self._moto.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no moto came up: {(self.folder / 'moto.log').read_text()}")
            time.sleep(POLL_SECONDS)
        self.ec2 = self._client("ec2")
        self.security_group = self._administer()
        self._thread.start()

    def instances(self) -> dict[str, dict[str, Any]]:
        """The books: instances by id, also those that are no more."""
        pages = self.ec2.describe_instances()["Reservations"]
        return {i["InstanceId"]: i for page in pages for i in page["Instances"]}

    def alive(self) -> list[str]:
        """The instances that are paid for. Raises what the cloud failed with."""
        if self._failure:
            raise self._failure
        return [i for i, known in self.instances().items() if known["State"]["Name"] in ALIVE]

    def calls(self, key: str) -> set[str]:
        """The API calls, as policies name them, of who came with an access key."""
        found = set()
        for line in (self.folder / "requests").read_text().splitlines():
            request = json.loads(line)
            who = re.search(r"Credential=([^/]+)/.*?/([^/]+)/aws4", str(request["headers"]))
            if who and who[1] == key:
                action = parse_qs(base64.b64decode(request["body"]).decode())["Action"][0]
                found.add(f"{who[2]}:{action}")
        return found

    def reclaim(self, instance: str) -> None:
        """Takes a spot instance away; its time for last words has passed."""
        self.hosts[instance].kill()
        self.ec2.terminate_instances(InstanceIds=[instance])

    def _play(self) -> None:
        while not self._is_over.wait(POLL_SECONDS):
            try:
                for instance, known in self.instances().items():
                    self._follow(instance, known)
            except BaseException as error:
                self._failure = error
                return

    def _follow(self, instance: str, known: dict[str, Any]) -> None:
        is_alive = known["State"]["Name"] in ALIVE
        if is_alive and instance not in self.hosts:
            pairs = self.ec2.describe_key_pairs(KeyNames=[known["KeyName"]], IncludePublicKey=True)
            self.hosts[instance] = self.lab.add(
                instance,
                known["PrivateIpAddress"],
                self.binds,
                pairs["KeyPairs"][0]["PublicKey"],
                self.boot,
            )
        elif not is_alive and instance in self.hosts:
            self.hosts[instance].kill()

    def _administer(self) -> str:
        """What has to be made once per account; returns the security group."""
        iam = self._client("iam")
        trust = (POLICIES / "trust-policy.json").read_text()
        policies = {"runs": "worker-policy", "workers": "head-policy"}
        for role, names in {"lenet-head": ("runs", "workers"), "lenet-worker": ("runs",)}.items():
            iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust)
            for name in names:
                document = (POLICIES / f"{policies[name]}.json").read_text()
                iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
            iam.create_instance_profile(InstanceProfileName=role)
            iam.add_role_to_instance_profile(InstanceProfileName=role, RoleName=role)
        (network,) = self.ec2.describe_vpcs()["Vpcs"]
        group = self.ec2.create_security_group(
            GroupName="lenet", Description="Ray nodes", VpcId=network["VpcId"]
        )
        return group["GroupId"]

    def _client(self, service: str) -> Any:
        # moto takes anybody; botocore wants to sign.
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id="nobody",
            aws_secret_access_key="nothing",
        )


def allowed(policy: str) -> set[str]:
    """What a policy of cluster/iam allows."""
    document = json.loads((POLICIES / f"{policy}.json").read_text())
    return {action for statement in document["Statement"] for action in statement["Action"]}
