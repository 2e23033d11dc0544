"""How a cluster is divided among workers: what fits, and what is recommended where it doesn't."""

from __future__ import annotations

import re

import pytest

from cluster import capacity
from cluster.capacity import Room, Share, gpu_share, shares
from cluster.connection import train_settings
from job.config.resolve import resolve
from job.errors import InputError, NoGpuError

WORKSTATION = [{"CPU": 8.0, "GPU": 1.0}]
PROCESSORS = [{"CPU": 4.0}, {"CPU": 4.0}]


@pytest.fixture
def cluster(monkeypatch):
    """Makes a cluster of these nodes."""
    return lambda nodes: monkeypatch.setattr(capacity, "room", lambda: Room(nodes))


@pytest.mark.parametrize(
    ("gpus", "share", "places"),
    [(1, 0.2, 5), (1, 0.1, 10), (2, 0.4, 5), (4, 0.8, 5), (1, 0.3333, 3), (1, 1, 1), (2, 0, 100)],
)
def test_as_many_shares_fit_as_ray_gives(gpus, share, places):
    """In binary fractions 1 // 0.2 is 4."""
    assert Room([{"CPU": 100, "GPU": gpus}]).places(Share(1.0, share)) == places


def test_a_worker_has_a_whole_gpu_where_there_are_any(cluster):
    cluster(WORKSTATION)
    assert shares(resolve({})) == Share(8.0, 1.0)
    assert shares(resolve({"device": "cpu"})).gpus == 0
    assert shares(resolve({"gpus_per_worker": 0})).gpus == 0
    assert shares(resolve({"workers": "5", "gpus_per_worker": 0.2})) == Share(1.0, 0.2)
    cluster(PROCESSORS)
    assert shares(resolve({"workers": "2"})) == Share(4.0, 0.0)


def recommended(text: str) -> list[dict[str, str]]:
    """Settings that a refusal names."""
    named = text.rpartition("; try ")[2].replace(", which shares each GPU", "")
    return [
        {flag[2:].replace("-", "_"): value}
        for flag, value in re.findall(r"(--[a-z-]+) (\S+)(?: or |$)", named)
    ]


@pytest.mark.parametrize(
    ("nodes", "given", "names"),
    [
        (
            WORKSTATION,
            {"workers": "2"},
            {"workers": "1", "gpus_per_worker": "0.5", "device": "cpu"},
        ),
        (
            WORKSTATION,
            {"workers": "3"},
            {"workers": "1", "gpus_per_worker": "0.3333", "device": "cpu"},
        ),
        (WORKSTATION, {"workers": "9"}, {"workers": "1", "cpus_per_worker": "0.5"}),
        (
            WORKSTATION * 2,
            {"workers": "3"},
            {"workers": "2", "gpus_per_worker": "0.5", "device": "cpu"},
        ),
        (PROCESSORS, {"workers": "2", "gpus_per_worker": 1}, {"device": "cpu"}),
        (PROCESSORS, {"workers": "9"}, {"workers": "8", "cpus_per_worker": "0.5"}),
        (
            PROCESSORS,
            {"workers": "4", "cpus_per_worker": 3},
            {"workers": "2", "cpus_per_worker": "2"},
        ),
    ],
)
def test_a_refusal_recommends_what_there_is_room_for(cluster, nodes, given, names):
    cluster(nodes)
    with pytest.raises(InputError, match="there is room for") as refused:
        shares(resolve(given))
    ways = recommended(str(refused.value))
    assert {k: v for way in ways for k, v in way.items()}.items() <= names.items()
    assert ways
    for way in ways:
        # Whoever does what it says is not refused again.
        asked = {**given, **way}
        if "device" in way:
            asked.pop("gpus_per_worker", None)
        shares(resolve(asked))


def test_where_nothing_helps_it_says_so(cluster):
    cluster([{"CPU": 0.0}])
    with pytest.raises(InputError, match="it needs more nodes, or larger ones"):
        shares(resolve({}))


def test_a_gpu_that_is_asked_for_must_be_there(cluster):
    cluster(PROCESSORS)
    with pytest.raises(NoGpuError, match="the cluster has no GPU, 2 nodes with 4 CPUs"):
        shares(resolve({"device": "gpu"}))


def test_a_gpu_is_not_asked_for_together_with_none():
    with pytest.raises(InputError, match="--device 'gpu': leave it or --gpus-per-worker 0 out"):
        gpu_share(resolve({"device": "gpu", "gpus_per_worker": 0}), Room(WORKSTATION))


def test_what_a_user_has_set_of_ray_is_his():
    """But for what the program could not work without."""
    own = {"RAY_TRAIN_V2_ENABLED": "0", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "3", "PATH": "/bin"}
    found = train_settings(own, elastic=True)
    assert found == {
        **{"RAY_TRAIN_V2_ENABLED": "1", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"},
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10",
    }
    assert "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S" not in train_settings({}, elastic=False)
