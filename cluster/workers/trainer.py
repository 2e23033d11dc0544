"""Ray Train's trainer without the helpers that these runs have no use for.

Each helper is a process that first imports Ray Train, 2.5 s of a processor, before or while the
workers import TensorFlow. Processes of a new cluster import this module as they start.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.callback import RayTrainCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


class Trainer(DataParallelTrainer):
    """Trains on data that the workers read themselves, without Ray Data.

    Args:
        work: What each worker does.
        is_own: The cluster was started for this run and ends with it. So no autoscaler wants to
            hear what it needs, and nobody has to give its room back.
        settings: As of `DataParallelTrainer`.
    """

    def __init__(self, work: Any, *, is_own: bool, **settings: Any) -> None:
        super().__init__(work, **settings)
        self._is_own = is_own

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        useless: tuple[type, ...] = (DatasetsCallback,)
        if self._is_own:
            useless += (PlacementGroupCleanerCallback,)
        every = super()._create_default_callbacks()
        return [callback for callback in every if not isinstance(callback, useless)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        if not self._is_own:
            return super()._initialize_and_run_controller(**parts)
        if not self.scaling_config.elasticity_enabled:
            parts["scaling_policy"] = AskNobody(self.scaling_config)
        # All processes of the cluster have this one's environment. With one of its own, as in Ray
        # Train, the controller could not take a process that waits for work.
        controller = ray.remote(num_cpus=0)(TrainController).remote(**parts)
        ray.get(controller.run.remote())
        return ray.get(controller.get_result.remote())


class AskNobody(FixedScalingPolicy):
    """Takes the processors that are there. Ray Train's own policy first tells an autoscaler what it
    needs, through an actor that is started for it, and waits for an answer."""

    def after_controller_start(self, train_run_context: Any) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass
