"""Clusters from `ray up` to `ray down`, on simulated hosts: `make e2e`. The tests of one cluster
build on each other, in this order."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from lab import HERE, Lab
from launched import LAPTOP, NODE_BINDS, Launched, laptop_binds
from object_store import ObjectStore

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ONPREM = "cluster/onprem.yaml"
WORKERS = 2


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    hosts = dict.fromkeys(("head", "worker1", "worker2"), NODE_BINDS)
    with Lab(tmp_path_factory.mktemp("lab"), {**hosts, LAPTOP: laptop_binds()}) as running:
        yield running


@pytest.fixture(scope="module")
def store(lab, lenet, tmp_path_factory) -> Iterator[ObjectStore]:
    """An S3 server on the lab's network, where the data set is."""
    with (
        ObjectStore(tmp_path_factory.mktemp("s3"), HERE) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in running.env().items():
            patch.setenv(name, value)
        staged = lenet("data", "stage", f"s3://{running.bucket}/data", "mnist", cwd=lab.folder)
        assert staged.returncode == 0, staged.stderr
        yield running


@pytest.fixture(scope="module")
def onprem(lab, store) -> Launched:
    """`ray up cluster/onprem.yaml`, with the settings that its user has to look at."""
    head, first, second = (lab[name].address for name in ("head", "worker1", "worker2"))
    storage = f"LENET_STORAGE=s3://{store.bucket}/runs"
    cluster = Launched(
        lab,
        store,
        ONPREM,
        {
            "head_ip: 192.168.1.10": f"head_ip: {head}",
            "[192.168.1.11, 192.168.1.12]": f"[{first}, {second}]",
            "install.sh LENET_STORAGE=/mnt/shared/lenet": (
                f"install.sh {storage} AWS_ENDPOINT_URL_S3={store.endpoint} AWS_REGION=us-east-1"
            ),
            # The hosts share this machine's processors.
            "ray start --head": "ray start --head --num-cpus=1",
            "ray start --address": "ray start --num-cpus=1 --address",
        },
    )
    cluster.ray("up", "-y")
    return cluster


def training(cluster: Launched, name: str) -> list[object]:
    """What follows `ray submit FILE`."""
    return [
        *("job/train.py", "--", "--name", name, "--workers", WORKERS, "--storage", cluster.place),
        *("--data", f"s3://{cluster.store.bucket}/data/mnist", "--limit-train", 12_000),
        *("--batch-size", 100, "--epochs", 3, "--learning-rate", 0.05, "--checkpoint-every", 20),
    ]


def test_a_run_is_submitted_from_the_laptop_and_its_results_are_read_there(onprem):
    onprem.ray("submit", *training(onprem, "first"))
    (run,) = json.loads(onprem.lenet("runs", "--storage", onprem.place, "--json"))
    assert (run["name"], run["state"]) == ("first", "finished")
    result = onprem.read("first", "result.json")
    assert result["workers"] == WORKERS
    assert result["restarts"] == result["lost_steps"] == 0
    assert result["test_accuracy"] > 0.9
    onprem.ray("exec", "lenet runs --storage $LENET_STORAGE")
    assert "first" in onprem.output("exec")


def test_down(onprem):
    onprem.ray("down", "-y")
    print(onprem.seconds)
