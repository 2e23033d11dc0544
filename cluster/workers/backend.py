"""A Ray Train backend that tells TensorFlow where the workers are, and does nothing else.

Ray's own `TensorflowConfig` imports TensorFlow in the driver and in the controller, ten seconds a
run, and switches every worker to legacy Keras.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.train import UserCallback
from ray.train.backend import Backend, BackendConfig

from cluster import ray_private
from cluster.tf_config import free_address, set_tf_config

# What a group held is free again in less than a second. Of what others hold nothing is known.
FREE_SECONDS, POLL_SECONDS = 5.0, 0.1


class TensorflowAddresses(Backend):
    """Sets `TF_CONFIG` on each worker."""

    def on_start(self, worker_group: Any, backend_config: TensorflowBackend) -> None:
        """Notes the group; tells each of several workers the addresses of all, and its rank."""
        backend_config.group = worker_group
        if len(worker_group) == 1:
            return
        addresses = worker_group.execute(free_address)
        ray.get(
            [
                worker_group.execute_single_async(rank, set_tf_config, addresses, rank)
                for rank in range(len(worker_group))
            ]
        )

    def on_shutdown(self, worker_group: Any, backend_config: TensorflowBackend) -> None:
        """Ends the workers at once, without waiting for them."""
        # What a run keeps is in its storage already. Ray Train would first wait five seconds for
        # workers to say goodbye, which stopped or stuck ones never do.
        for worker in worker_group.get_workers():
            ray.kill(worker.actor)


@dataclasses.dataclass
class TensorflowBackend(BackendConfig):
    """Names the backend to Ray Train.

    Attributes:
        group: The worker group that was started last; known in Ray Train's controller.
    """

    group: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: each worker gets a copy, and must not get the group with what it failed of.

        An error of TensorFlow's would be among that, and import TensorFlow in a new worker before
        its settings are made: without oneDNN, whose sums round otherwise.
        """
        return {}

    @property
    def backend_cls(self) -> type[Backend]:
        """The class of which Ray Train's controller makes one for a run."""
        return TensorflowAddresses


def callbacks(backend: TensorflowBackend, mailbox: ray.actor.ActorHandle) -> list[Any]:
    """What Ray Train's controller does for a run at its moments.

    It tells the driver how to end it, ends groups that it would forget, and logs what is reported.

    Args:
        backend: Knows the last group.
        mailbox: Where the driver hears of the controller.
    """
    moments = ray_private.train_callbacks(
        controller_started=functools.partial(_introduce, mailbox),
        end_left_behind=functools.partial(_end_left_behind, backend),
        group_starts=let_free,
    )
    return [*moments, Reported()]


class Reported(UserCallback):
    """Logs each epoch that all workers have reported, where Ray's dashboard shows it."""

    def after_report(
        self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any
    ) -> None:
        """Logs what the first worker reported; the others say the same."""
        words = [f"{name} {value:.6g}" for name, value in metrics[0].items()]
        logging.getLogger("ray.train").info("reported: %s", ", ".join(words))


def _introduce(mailbox: ray.actor.ActorHandle) -> None:
    """Tells the driver which actor the controller is, so that it can be ended from there.

    Ray Train offers that to the main thread alone.
    """
    # As an object: the mailbox would import Ray Train, 1.5 s of a processor, to hold its handle.
    controller = ray.put(ray.get_runtime_context().current_actor)
    mailbox.post.remote([("controller", [controller])])


def _end_left_behind(backend: TensorflowBackend) -> None:
    """Ends a worker group that broke while it was started.

    Called before the next one is started, and before Ray Train gives up. Ray Train 2.60 forgets
    such a group when a worker dies after the group counts as started (it cleans up only before,
    `WorkerGroup._start`). Its other workers would keep their processors for good, and the next
    group would wait for room for ever.
    """
    group = backend.group
    if group is not None and group.has_started():
        group.shutdown()


def let_free(wanted: Mapping[str, float]) -> None:
    """Waits a little until what a group will ask for is free, as far as it is there at all.

    The next group would ask while the machines of the last one still count as taken; an autoscaler
    that looks in that moment rents one more for each (Ray's v1, which counts a waiting group beside
    what `cluster/autoscaling.py` asks for). After a lost spot machine that was a machine too many.

    Args:
        wanted: Amounts by resource.
    """
    deadline = time.monotonic() + FREE_SECONDS
    while time.monotonic() < deadline:
        there, free = ray.cluster_resources(), ray.available_resources()
        if all(free.get(name, 0) >= min(n, there.get(name, 0)) for name, n in wanted.items()):
            return
        time.sleep(POLL_SECONDS)
