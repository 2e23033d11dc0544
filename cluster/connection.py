"""The connection to Ray: which cluster, and with which settings."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from cluster import ray_private
from job.data.cache import home
from job.engine.runtime import stderr_held_back
from job.errors import InputError
from job.waiting import waiting

# Ray's defaults take a minute to notice a link that is down, and 418 s to fail what waits for it.
# With these, a dead node is noticed in 8.6 s and a dead link in 11 s. They must be set where a
# cluster's `ray start` runs too; here they serve a cluster that is started for one run.
FAULT_DETECTION = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_grpc_client_keepalive_time_ms": "5000",
    "RAY_grpc_client_keepalive_timeout_ms": "5000",
}
# The first version of Ray Train is another program. All other settings are the user's who has made
# them.
NEEDED = {"RAY_TRAIN_V2_ENABLED": "1"}
# Ray Train looks at its workers this often; its default of 2 s is a part of every detection time.
LOOKS_SECONDS = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
TRAIN_SETTINGS = {LOOKS_SECONDS: "0.5", "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1"}
# Under `uv run` Ray would start its workers in a copy of the folder, without the environment that
# the driver has.
UV = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
# Nobody takes away the machine on which a run has started a cluster of its own.
WATCH_PREEMPTION = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
# After a node's death Ray Train may still count on it, and then waits so long for a group that
# can't be placed, a minute by default, before it takes what is left (measured: 75 s until training
# went on, against 35 s).
ELASTIC_SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "10"}

# Of a folder, in bytes: Ray makes sockets 67 to 69 bytes further down, whose names may have 107.
LONGEST_FOLDER = 107 - 69
RAY_FOLDER = "RAY_TMPDIR"

CONNECT_SECONDS = 5.0
# After a signal, for what still waits within a library.
GRACE_SECONDS = 3.0


class UnreachableError(InputError):
    """The address is one, but there is no cluster at it that this process can use."""


@contextlib.contextmanager
def connected(
    address: str | None,
    *,
    elastic: bool = False,
    verbose: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Iterator[bool]:
    """Connects to a Ray cluster, or starts one in this machine for the time of the block.

    Nothing happens where this process is connected already, as one of a trial is. Yields whether
    the cluster is this process' own.

    Args:
        address: `auto` (the running one), `HOST:PORT`, `local`, or None for the running one if
            there is one and else a new one.
        elastic: The number of workers may change during the run.
        verbose: Let Ray and the workers write to the terminal.
        meanwhile: Called in a thread of its own while Ray connects, which mostly waits.

    Raises:
        InputError: There is no cluster at the address, or it is of another version.
    """
    with variables(train_settings(os.environ, elastic=elastic)):
        # Without importing Ray, which takes a second, where nothing else has.
        ray = sys.modules.get("ray")
        if ray is not None and ray.is_initialized():
            yield False
        else:
            with _joined(address, verbose=verbose, meanwhile=meanwhile) as is_own:
                yield is_own


def train_settings(environment: Mapping[str, str], *, elastic: bool) -> dict[str, str]:
    """What is to be set for Ray Train in this environment, where its user has not."""
    usual = TRAIN_SETTINGS | (ELASTIC_SETTINGS if elastic else {})
    return NEEDED | {name: value for name, value in usual.items() if name not in environment}


def token_file() -> Path:
    """Where Ray looks for its token, and keeps the one that it makes."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or home() / ".ray" / "auth_token")


@contextlib.contextmanager
def variables(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Changes environment variables for the time of the block; None takes one away."""
    before = {name: os.environ.get(name) for name in changes}
    _set_variables(changes)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextlib.contextmanager
def _joined(
    address: str | None, *, verbose: bool, meanwhile: Callable[[], object]
) -> Iterator[bool]:
    """As `connected`, for a process that is not."""
    for name, value in {**FAULT_DETECTION, UV: "0", **_folder()}.items():
        os.environ.setdefault(name, value)
    field = "--address"
    if address in (None, "auto") and (given := os.environ.get("RAY_ADDRESS")):
        # Which Ray would take as well, and try for minutes.
        field, address = "RAY_ADDRESS", given
    named = None if address in (None, "auto", "local") else address
    if named is not None:
        _check_reachable(field, named)
    import ray
    from ray.exceptions import AuthenticationError, RaySystemError

    if named is not None:
        _check_answer(field, named)
    elif address != "local":
        address = _found(address)
    # Ray starts a cluster for nothing else.
    is_own = address == "local"
    level = "INFO" if verbose else "ERROR"
    # Inherited by a cluster that is started now.
    os.environ[WATCH_PREEMPTION] = str(int(not is_own))
    had_token = token_file().exists()
    on_termination = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=meanwhile, name="meanwhile", daemon=True).start()
    try:
        # Ray's workers look for modules in the folder that this is called from, before all others:
        # a `job.py` of the user's there is none of our business.
        with contextlib.chdir("/"), _patiently("Ray to start" if is_own else f"{field} {address}"):
            ray.init(
                address=address,
                logging_level=level,
                log_to_driver=verbose,
                # A dashboard that nobody asked for costs a second and a port.
                include_dashboard=False,
            )
    except AuthenticationError as error:
        raise _refused(field, address) from error
    except (ConnectionError, ValueError, RuntimeError, RaySystemError) as error:
        reason = " ".join(str(error).split())
        raise UnreachableError(
            field, address, f"no Ray cluster can be used there: {reason}"
        ) from error
    if is_own and not had_token and token_file().exists():
        # Ray makes it readable to all.
        token_file().chmod(0o600)
    with contextlib.ExitStack() as after:
        after.callback(ray.shutdown)
        if callable(on_termination) and threading.current_thread() is threading.main_thread():
            # Ray has put its own in the place, which exits at once: `ray job stop`, say, would cost
            # the steps since the last checkpoint.
            signal.signal(signal.SIGTERM, on_termination)
        # Whatever the level, Ray prints its nodes' errors to stdout, which is kept for results; a
        # lost worker is said in one line by the attempt that follows.
        sink = sys.stderr if verbose else after.enter_context(open(os.devnull, "w"))
        after.enter_context(contextlib.redirect_stdout(sink))
        yield is_own


def _folder() -> dict[str, str]:
    """Where Ray keeps its sockets and logs, if not where it would by itself.

    Batch systems have long names for temporary folders.

    Raises:
        InputError: The folder that was chosen for Ray has too long a name.
    """
    chosen, usual = os.environ.get(RAY_FOLDER, ""), os.environ.get("TMPDIR", "")
    if len(os.fsencode(chosen)) > LONGEST_FOLDER:
        raise InputError(
            RAY_FOLDER,
            chosen,
            f"is too long for Ray's sockets; name a folder of at most {LONGEST_FOLDER} bytes, or "
            "leave it out",
        )
    return {RAY_FOLDER: "/tmp"} if len(os.fsencode(usual)) > LONGEST_FOLDER else {}


@contextlib.contextmanager
def _patiently(what: str) -> Iterator[None]:
    """Says what is waited for, and lets signals end it, while Ray connects.

    It does so within its libraries, for good where the cluster dies meanwhile, and Python calls no
    handler of a signal before they return. Who has set one asks to be ended by it: what is not left
    `GRACE_SECONDS` later ends with the process. Nothing has been written by then.
    """
    with waiting(what), contextlib.ExitStack() as after:
        if threading.current_thread() is threading.main_thread():
            after.enter_context(_ended_by_signals(what))
        yield


@contextlib.contextmanager
def _ended_by_signals(what: str) -> Iterator[None]:
    own = {
        number
        for number in (signal.SIGINT, signal.SIGTERM)
        if callable(handler := signal.getsignal(number))
        and handler is not signal.default_int_handler
    }
    is_over = threading.Event()
    hears, rings = socket.socketpair()

    def listen() -> None:
        while number := hears.recv(1)[0]:
            if number in own and not is_over.wait(GRACE_SECONDS):
                print(f"stopped while waiting for {what}", file=sys.stderr, flush=True)
                os._exit(128 + number)

    listening = threading.Thread(target=listen, name="signals", daemon=True)
    with hears, rings:
        rings.setblocking(False)
        before = signal.set_wakeup_fd(rings.fileno(), warn_on_full_buffer=False)
        listening.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            is_over.set()
            # No signal has this number.
            rings.send(b"\0")
            listening.join()


def _found(address: str | None) -> str | None:
    """What to ask Ray for where no cluster is named; `local` where it would start one.

    Also where the one that it would find was killed, and could not take its address with it.
    """
    last = ray_private.last_address()
    if last is None or (address == "auto" and ray_private.runs_here()):
        return address or "local"
    try:
        _check_reachable("--address", last)
    except InputError as gone:
        if address is None:
            return "local"
        raise UnreachableError(
            "--address",
            address,
            f"the last cluster of this machine is gone ({last}); start one "
            "with ray start --head, or give local or HOST:PORT",
        ) from gone
    return address


def _check_reachable(field: str, address: str) -> None:
    """Ray itself would try for minutes."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdecimal() or "/" in host:
        raise InputError(field, address, "give auto, local or HOST:PORT")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UnreachableError(
            field, address, f"no Ray cluster answers there ({error}); is its head running?"
        ) from error


def _check_answer(field: str, address: str) -> None:
    """Asks the cluster's head once.

    Ray itself would ask again and again, print a line for each, and not say in the end that it was
    the token.
    """
    from ray.exceptions import AuthenticationError, RayError

    failure: RayError | None = None
    with stderr_held_back(), _patiently(f"{field} {address}"):
        try:
            ray_private.ask_head(address)
        except RayError as error:
            failure = error
    if isinstance(failure, AuthenticationError):
        raise _refused(field, address) from failure
    if failure:
        reason = f"what answers there is no Ray head: {' '.join(str(failure).split())}"
        raise UnreachableError(field, address, reason) from failure


def _refused(field: str, address: str | None) -> UnreachableError:
    return UnreachableError(
        field,
        address,
        "the cluster asks for a token that this process does not have; set RAY_AUTH_MODE=token, "
        "with the cluster's ~/.ray/auth_token here (docs/security.md)",
    )
