"""Everything of Ray's that is not public; `tests/test_project/test_layers.py` counts the lines.

Read in Ray 2.58.1 and 2.60.0, where it is the same; each function says what is done by a Ray that
does not have it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any


def last_address() -> str | None:
    """The address that the last `ray start` here left, whether or not there still is a cluster.

    None where this is not known: without `--address auto` a new one is started then.
    """
    try:
        from ray._private.services import find_bootstrap_address
    except ImportError:
        return None
    return find_bootstrap_address(None)


def runs_here() -> bool:
    """Whether a cluster's head runs on this machine, seen by its processes.

    No where this is not known, and an address that was left counts instead.
    """
    try:
        from ray._private.services import find_gcs_addresses
    except ImportError:
        return False
    return bool(find_gcs_addresses())


def ask_head(address: str) -> None:
    """Asks a cluster's head once.

    Raises ray.exceptions.AuthenticationError without its token, and RayError where no head answers.
    Nothing is asked where it is not known how: `ray.init` asks for minutes then, and does not say
    that it was the token.
    """
    try:
        from ray._private.authentication.authentication_token_setup import (
            ensure_token_if_auth_enabled,
        )
        from ray._raylet import GcsClient  # type: ignore[attr-defined]  # missing in Ray's stub
    except ImportError:
        return
    # Without a token where one is needed, the client would end this process.
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    GcsClient(address=address)


def asks_for_token() -> bool:
    """Whether Ray asks for its token in this process.

    Else what the environment says, which is all that Ray up to 2.60 goes by.
    """
    try:
        from ray._private.authentication.authentication_utils import is_token_auth_enabled
    except ImportError:
        return os.environ.get("RAY_AUTH_MODE") == "token"
    return is_token_auth_enabled()


def check_cluster_file(config: dict[str, Any]) -> None:
    """Raises whatever Ray has against a cluster file.

    A Ray without this check has nothing, and `cluster/files/` has checks of its own.
    """
    try:
        from ray.autoscaler._private.util import prepare_config, validate_config
    except ImportError:
        return
    validate_config(prepare_config(config))


def train_callbacks(
    *,
    controller_started: Callable[[], None],
    end_left_behind: Callable[[], None],
    group_starts: Callable[[Mapping[str, float]], None],
) -> list[Any]:
    """Callbacks for Ray Train's `RunConfig`, which are called in its controller.

    None where there are no such callbacks: a group that broke at its start may hold its processors
    until the run ends, and a stop before training waits for Ray Train.

    Args:
        controller_started: Called at its start.
        end_left_behind: Called before each start of a group of workers, and at its end.
        group_starts: Called after that, with the resources that the group will ask for in all.
    """
    try:
        from ray.train.v2._internal.execution.callback import (
            ControllerCallback,
            WorkerGroupCallback,
        )
    except ImportError:
        return []

    class Moments(WorkerGroupCallback, ControllerCallback):
        def after_controller_start(self, train_run_context: Any) -> None:
            controller_started()

        def before_worker_group_start(self, worker_group_context: Any) -> None:
            end_left_behind()
            count, each = (
                worker_group_context.num_workers,
                worker_group_context.resources_per_worker,
            )
            group_starts({name: count * amount for name, amount in each.items()})

        async def before_controller_shutdown(self) -> None:
            end_left_behind()

    return [Moments()]


def abort_training(controller: Any, patience: float) -> None:
    """Ends a run of Ray Train, with its workers and what they hold, as Ctrl-C in `fit` does.

    Where that can't be asked for, or is not answered in `patience` seconds, the controller is
    killed: its workers go with it, and what they held when Ray's dashboard notices.
    """
    import ray
    from ray.exceptions import RayError

    try:
        ray.get(controller.abort.remote(), timeout=patience)
    except (AttributeError, RayError):
        # Its answer to a request that was met: it has ended.
        ray.kill(controller)
