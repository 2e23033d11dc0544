"""Machines that come when a run needs them. The autoscaler itself is played by a list here."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from cluster import autoscaling as growth
from job.config.resolve import resolve
from job.errors import JobError, StopRequestedError

HEAD = {"CPU": 0}
GPU_WORKER = {"CPU": 4, "GPU": 1}


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


class Autoscaler:
    """Has a machine more at each look, up to what it was asked for."""

    def __init__(self, comes: int) -> None:
        self.nodes, self.comes, self.asked = [dict(HEAD)], comes, []

    def request_resources(self, bundles: list[dict[str, float]]) -> None:
        self.asked.append(bundles)

    def look(self) -> list[dict]:
        if self.asked and len(self.nodes) <= min(self.comes, len(self.asked[-1])):
            self.nodes.append(dict(GPU_WORKER))
        return [{"Alive": True, "Resources": node} for node in self.nodes]


@pytest.fixture
def autoscaler(monkeypatch):
    """A cluster whose autoscaler can start two machines."""
    import ray
    import ray.autoscaler.sdk

    playing = Autoscaler(comes=2)
    monkeypatch.setattr(ray.autoscaler.sdk, "request_resources", playing.request_resources)
    monkeypatch.setattr(ray, "nodes", playing.look)
    monkeypatch.setattr(growth, "worker_types", lambda: [GPU_WORKER])
    monkeypatch.setattr(growth, "own_machines", lambda: None)
    monkeypatch.setattr(growth, "POLL_SECONDS", 0.001)
    return playing


def test_machines_are_asked_for_and_let_go(autoscaler):
    notes = Notes()
    with growth.autoscaled(resolve({"workers": "2"}), notes):
        assert autoscaler.asked == [[{"CPU": 1.0, "GPU": 1.0}] * 2]
        assert len(autoscaler.nodes) == 3
    assert autoscaler.asked[-1] == []
    [said] = notes.said
    assert said == "waiting for machines: room for 1 of 2 workers; 0:00 so far, at most 20:00"


def test_a_range_of_workers_begins_with_the_least(autoscaler):
    with growth.autoscaled(resolve({"workers": "1:8"}), Notes()):
        assert len(autoscaler.asked[0]) == 8
        assert len(autoscaler.nodes) >= 2


def test_machines_that_do_not_come_end_the_run(autoscaler):
    with (
        pytest.raises(JobError, match="room for 2 of 3 workers after 0 s"),
        growth.autoscaled(resolve({"workers": "3"}), Notes(), patience=0.1),
    ):
        pass
    assert autoscaler.asked[-1] == []


def test_waiting_can_be_stopped(autoscaler):
    with (
        pytest.raises(StopRequestedError) as stopped,
        growth.autoscaled(resolve({"workers": "3"}), Notes(), lambda: 15),
    ):
        pass
    assert stopped.value.exit_code == 143
    assert autoscaler.asked[-1] == []


def test_a_failure_of_the_run_lets_go_too(autoscaler):
    with pytest.raises(KeyError), growth.autoscaled(resolve({"workers": "2"}), Notes()):
        raise KeyError
    assert autoscaler.asked[-1] == []


def test_nothing_is_asked_for_what_no_machine_holds(autoscaler):
    with growth.autoscaled(resolve({"workers": "2", "cpus_per_worker": 8}), Notes()):
        pass
    assert autoscaler.asked == []


def test_the_types_of_machines_are_read_where_ray_up_leaves_them(tmp_path):
    path = tmp_path / "bootstrap.yaml"
    types = {
        "head": {"resources": HEAD, "max_workers": 0},
        "gpu": {"resources": GPU_WORKER, "max_workers": 4},
        "never": {"resources": GPU_WORKER, "max_workers": 0},
    }
    path.write_text(json.dumps({"head_node_type": "head", "available_node_types": types}))
    assert growth.worker_types(str(path)) == [GPU_WORKER]
    path.write_text("{}")
    assert growth.worker_types(str(path)) == growth.worker_types(str(tmp_path / "none")) == []


def listed(path, workers: int = 2, **more) -> str:
    provider = {"type": "local", "head_ip": "a", "worker_ips": ["b", "c", "d"][:workers]}
    path.write_text(json.dumps({"provider": provider, "max_workers": workers, **more}))
    return str(path)


def test_machines_of_ones_own_are_counted_where_ray_up_leaves_them(tmp_path):
    path = tmp_path / "bootstrap.yaml"
    listed(path, 3)
    assert growth.own_machines(str(path)) == (4, path.stat().st_mtime, False)
    assert growth.own_machines(listed(path, 3, max_workers=1)).size == 2
    start = ["ray stop", "A=1 ray start --address=$RAY_HEAD_IP:6379 --num-gpus=1"]
    assert growth.own_machines(listed(path, worker_start_ray_commands=start)).have_gpus
    path.write_text(json.dumps({"provider": {"type": "aws", "region": "us-west-2"}}))
    assert growth.own_machines(str(path)) is growth.own_machines(str(tmp_path / "none")) is None


class Joining(Autoscaler):
    """Machines of one's own: one more has joined at each look."""

    machine = {"CPU": 4}  # noqa: RUF012

    def look(self) -> list[dict]:
        if len(self.nodes) <= self.comes:
            self.nodes.append(dict(self.machine))
        return [{"Alive": True, "Resources": node} for node in self.nodes]


@pytest.fixture
def joining(monkeypatch):
    """A list of a head and three machines, of which two join."""
    import ray

    playing = Joining(comes=2)
    monkeypatch.setattr(ray, "nodes", playing.look)
    monkeypatch.setattr(growth, "POLL_SECONDS", 0.001)

    def up(count: int, seconds_ago: float, **more: bool) -> Joining:
        own = growth.Own(count, growth.time.time() - seconds_ago, **more)
        monkeypatch.setattr(growth, "own_machines", lambda: own)
        return playing

    return up


def test_all_that_may_still_join_are_waited_for_though_there_is_room(joining):
    machines, notes = joining(3, seconds_ago=10), Notes()
    with growth.autoscaled(resolve({"workers": "2"}), notes):
        assert len(machines.nodes) == 3
    assert [text.partition(";")[0] for text in notes.said] == [
        "waiting for machines: 2 of 3 have joined"
    ]


def test_a_machine_that_is_off_is_not_waited_for(joining):
    joining(4, seconds_ago=growth.GPU_JOINING_SECONDS + 1)
    with growth.autoscaled(resolve({"workers": "2"}), Notes()):
        pass


@pytest.mark.parametrize("given", [{"device": "cpu"}, {"gpus_per_worker": 0}])
def test_one_that_could_only_bring_gpus_is_not_waited_for_where_none_is_wanted(joining, given):
    joining(4, seconds_ago=growth.JOINING_SECONDS + 1)
    with growth.autoscaled(resolve({"workers": "2", **given}), Notes()):
        pass


def test_a_machine_that_installs_cudas_libraries_is_waited_for(joining):
    """The processors of the head and of the others would do."""
    machines, notes = joining(4, seconds_ago=growth.JOINING_SECONDS + 1), Notes()
    with (
        pytest.raises(JobError, match=r"3 of 4 have joined, no GPU has joined yet .* after 0 s"),
        growth.autoscaled(resolve({"workers": "2"}), notes, patience=0.1),
    ):
        pass
    machines.machine, machines.comes = GPU_WORKER, 3
    with growth.autoscaled(resolve({"workers": "1"}), notes):
        assert machines.nodes[-1] == GPU_WORKER


@pytest.mark.parametrize(
    ("given", "have_gpus"),
    [({}, True), ({"gpus_per_worker": 0.5}, False), ({"device": "gpu"}, False)],
)
def test_where_gpus_are_known_of_no_time_makes_processors_train(joining, given, have_gpus):
    joining(4, seconds_ago=10 * growth.GPU_JOINING_SECONDS, have_gpus=have_gpus)
    with (
        pytest.raises(JobError, match="3 of 4 have joined, no GPU has joined yet after 0 s"),
        growth.autoscaled(resolve({"workers": "2", **given}), Notes(), patience=0.1),
    ):
        pass


def test_where_it_is_too_narrow_without_it_it_is(joining):
    joining(4, seconds_ago=growth.GPU_JOINING_SECONDS + 1)
    with (
        pytest.raises(JobError, match="--workers 9: 3 of 4 have joined after 0 s"),
        growth.autoscaled(resolve({"workers": "9"}), Notes(), patience=0.1),
    ):
        pass


def test_all_being_there_whether_they_suffice_is_no_business_of_this(joining):
    joining(3, seconds_ago=10)
    with growth.autoscaled(resolve({"workers": "9"}), Notes()):
        pass


REPLACED = {
    "other machine seen as free": (1.0, 0),
    "other machine seen as taken": (0.0, 1),
}


@pytest.mark.parametrize("case", REPLACED)
def test_why_a_machine_too_many_may_be_rented(case):
    """What Ray's autoscaler does while a lost machine's replacement is on its way and two workers
    wait to be placed: the reason for `let_free`."""
    free, more = REPLACED[case]
    assert launched_by_ray(free).get("worker", 0) == more


def launched_by_ray(free: float) -> dict[str, int]:
    """Machines that autoscaler v1 starts, with a head, a worker's machine and one that comes."""
    from ray.autoscaler import tags
    from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
    from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
    from ray.core.generated.common_pb2 import PlacementStrategy

    class Provider:
        def node_tags(self, node: str) -> dict[str, str]:
            return {tags.TAG_RAY_USER_NODE_TYPE: node, tags.TAG_RAY_NODE_KIND: node}

        def internal_ip(self, node: str) -> str:
            return node

    types = {
        "head": {"resources": {"CPU": 0}},
        "worker": {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 4},
    }
    bundles = [SimpleNamespace(node_id=b"", unit_resources={"CPU": 1.0}) for _ in range(2)]
    group = SimpleNamespace(strategy=PlacementStrategy.PACK, bundles=bundles)
    scheduler = ResourceDemandScheduler(Provider(), types, 4, "head", 1.0)
    launched, _ = scheduler.get_nodes_to_launch(
        nodes=["head", "worker"],
        launching_nodes={"worker": 1},
        resource_demands=[],
        unused_resources_by_ip={"head": {}, "worker": {"CPU": free}},
        pending_placement_groups=[group],
        max_resources_by_ip={"head": {"CPU": 0.0}, "worker": {"CPU": 1.0}},
        ensure_min_cluster_size=[{"CPU": 1.0}] * 2,
        node_availability_summary=NodeAvailabilitySummary({}),
    )
    return launched


def test_workers_start_anew_when_the_machines_that_are_left_are_free(monkeypatch):
    import ray

    from cluster.workers import backend

    looks = iter([{}, {"CPU": 0.5}, {"CPU": 1.0}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "available_resources", lambda: next(looks))
    monkeypatch.setattr(backend, "POLL_SECONDS", 0.0)
    backend.let_free({"CPU": 2.0})
    assert next(looks, None) is None


def test_what_others_hold_is_not_waited_for_long(monkeypatch):
    import ray

    from cluster.workers import backend

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "available_resources", dict)
    monkeypatch.setattr(backend, "FREE_SECONDS", 0.2)
    backend.let_free({"CPU": 2.0})
