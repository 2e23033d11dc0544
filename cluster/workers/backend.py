"""A Ray Train backend that tells TensorFlow where the workers are, and does nothing else.

Ray's own `TensorflowConfig` imports TensorFlow in the driver and in the controller, ten seconds a
run, and switches every worker to legacy Keras.
"""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

from cluster.tf_config import free_address, set_tf_config


class TensorflowAddresses(Backend):
    """Sets `TF_CONFIG` on each worker."""

    def on_start(self, worker_group: Any, backend_config: TensorflowBackend) -> None:
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

    @property
    def backend_cls(self) -> type[Backend]:
        return TensorflowAddresses


class LeftBehind(WorkerGroupCallback, ControllerCallback):
    """Ends a worker group that broke while it was started, before the next one is, or before Ray
    Train gives up.

    Ray Train 2.60 forgets such a group when a worker dies after the group counts as started (it
    cleans up only before, `WorkerGroup._start`). Its other workers would keep their processors for
    good, and the next group would wait for room for ever.

    Args:
        backend: Knows the last group.
    """

    def __init__(self, backend: TensorflowBackend) -> None:
        self._backend = backend

    def before_worker_group_start(self, worker_group_context: Any) -> None:
        self._end()

    async def before_controller_shutdown(self) -> None:
        self._end()

    def _end(self) -> None:
        group = self._backend.group
        if group is not None and group.has_started():
            group.shutdown()


class Reachable(ControllerCallback):
    """Tells the driver which actor Ray Train's controller is, so that it can be ended from there:
    Ray Train offers that to the main thread alone.

    Args:
        mailbox: Where the driver hears of it.
    """

    def __init__(self, mailbox: ray.actor.ActorHandle) -> None:
        self._mailbox = mailbox

    def after_controller_start(self, train_run_context: Any) -> None:
        controller = ray.get_runtime_context().current_actor
        # Pickled: the mailbox would import Ray Train, 1.5 s of a processor, to hold its handle.
        self._mailbox.post.remote([("controller", pickle.dumps(controller))])
