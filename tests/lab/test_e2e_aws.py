"""`ray_cluster.yaml` from `ray up` to `ray down`, on hosts that a mock of EC2 rents: `make e2e`.
The tests build on each other, in this order."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.lab import USER, Lab
from tests.lab.launched import (
    LAPTOP,
    NODE_BINDS,
    WORKERS,
    Launched,
    check_first_run,
    data_store,
    give_credentials,
    laptop_binds,
    losing,
    wait_until,
)
from tests.lab.mock_cloud import REGION, MockCloud, allowed

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory) -> Iterator[MockCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with (
        Lab(tmp_path_factory.mktemp("lab"), {LAPTOP: laptop_binds()}) as lab,
        data_store(tmp_path_factory.mktemp("s3")) as store,
        # Hosts have the store's credentials from the start, as instances have those of their role.
        MockCloud(
            *(lab, store, folder, NODE_BINDS),
            lambda host: give_credentials(host, f"/home/{USER}", store),
        ) as running,
    ):
        yield running


@pytest.fixture(scope="module")
def aws(cloud) -> Launched:
    """`ray up ray_cluster.yaml`, with the settings that its user has to look at, and what the lab
    has not: another network to come from, GPUs, and Ubuntu's account."""
    bucket, endpoint = cloud.store.bucket, cloud.store.endpoint
    settings = {
        "[sg-00000000000000000]": f"[{cloud.security_group}]",
        f"install.sh AWS_REGION={REGION} LENET_STORAGE=s3://BUCKET/lenet": (
            f"install.sh AWS_REGION={REGION} LENET_STORAGE=s3://{bucket}/runs "
            f"AWS_ENDPOINT_URL={cloud.endpoint} AWS_ENDPOINT_URL_S3={endpoint}"
        ),
        "cache_stopped_nodes: false": "cache_stopped_nodes: false\n  use_internal_ips: true",
        "ssh_user: ubuntu": f"ssh_user: {USER}",
        # Ray knows that such a machine has a GPU, where nothing is said of it.
        "resources: {CPU: 4, GPU: 1}": "resources: {CPU: 1, GPU: 0}",
    }
    cluster = Launched(
        *(cloud.lab, cloud.store, "ray_cluster.yaml", settings),
        AWS_REGION=REGION,
        AWS_ENDPOINT_URL=cloud.endpoint,
    )
    cluster.ray("up", "-y")
    return cluster


def test_a_run_has_machines_rented_and_its_results_are_read_on_the_laptop(aws, cloud):
    assert len(cloud.alive()) == 1
    check_first_run(aws)
    kinds = sorted(cloud.instances()[instance]["InstanceType"] for instance in cloud.alive())
    assert kinds == sorted(["m6i.large", *["g4dn.xlarge"] * WORKERS])


def test_a_spot_instance_that_is_taken_away_is_replaced(aws, cloud, keep):
    with losing(aws, "reclaimed") as loss:
        cloud.reclaim(loss.victim)
    assert loss.victim not in cloud.alive()
    assert len(cloud.alive()) == 1 + WORKERS
    keep("reclaim", loss.figures)


def test_down(aws, cloud, keep):
    aws.ray("down", "-y")
    wait_until(lambda: not cloud.alive(), "the end of all instances")
    keep("aws", aws.seconds)


def test_nobody_called_what_their_policy_does_not_allow(cloud):
    laptop = cloud.calls(cloud.store.env(reader=True)["AWS_ACCESS_KEY_ID"])
    nodes = cloud.calls(cloud.store.env()["AWS_ACCESS_KEY_ID"])
    assert laptop <= allowed("launcher-policy")
    assert nodes <= allowed("head-policy")
    assert {"ec2:RunInstances", "ec2:TerminateInstances"} <= laptop
    assert "ec2:RunInstances" in nodes
