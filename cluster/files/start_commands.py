"""The `ray start` commands of a cluster file."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any, NamedTuple

from cluster.connection import FAULT_DETECTION
from job.errors import nearest

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BOOTSTRAP = "~/ray_bootstrap_config.yaml"


class Start(NamedTuple):
    """One `ray start`: the variables before it, and its options."""

    environment: dict[str, str]
    options: dict[str, str]


def start_problems(config: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Problems of both lists of commands, as (key, value, text)."""
    starts = {}
    for role in ("head", "worker"):
        key = f"{role}_start_ray_commands"
        if key not in config:
            continue
        found = [start for command in config[key] for start in parse(str(command))]
        if len(found) != 1:
            yield key, None, f"holds {len(found)} times `ray start`; one is needed"
            continue
        starts[role] = found[0]
        for path, value, text in _common(found[0]):
            yield f"{key}: {path}", value, text
    if "head" in starts:
        yield from _head(starts["head"])
    if "worker" in starts:
        yield from _worker(starts["worker"], starts.get("head"))


def parse(command: str) -> list[Start]:
    """The `ray start` of a shell command: `A=1; export B=2 && C=3 ray start --x=1 --y 2`."""
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=";&|")
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return []
    exported: dict[str, str] = {}
    found = []
    for part in _parts(words):
        exports = part[:1] == ["export"]
        own = {}
        rest = part[1:] if exports else part
        while rest and "=" in rest[0] and not rest[0].startswith("-"):
            name, _, value = rest.pop(0).partition("=")
            own[name] = value
        if exports:
            exported |= own
        elif rest[:2] == ["ray", "start"]:
            found.append(Start({**exported, **own}, _options(rest[2:])))
    return found


def _parts(words: list[str]) -> Iterator[list[str]]:
    part: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set(";&|"):
            yield part
            part = []
        else:
            part.append(word)


def _options(words: list[str]) -> dict[str, str]:
    options = {}
    for index, word in enumerate(words):
        if word.startswith("--"):
            name, given, value = word.partition("=")
            following = words[index + 1] if index + 1 < len(words) else "--"
            options[name] = value if given or following.startswith("--") else following
    return options


def _common(start: Start) -> Iterator[tuple[str, Any, str]]:
    for name, value in FAULT_DETECTION.items():
        given = start.environment.get(name)
        if given != value:
            yield name, given, f"set {name}={value} before ray start, on all nodes"
    mode = start.environment.get("RAY_AUTH_MODE")
    if mode != "token":
        yield "RAY_AUTH_MODE", mode, "set RAY_AUTH_MODE=token before ray start: else no token"
    from ray.scripts.scripts import start as ray_start

    known = [name for parameter in ray_start.params for name in parameter.opts]
    for name in start.options:
        if name not in known:
            yield name, None, f"ray start has no such option{nearest(name, known)}"
    if "--ray-debugger-external" in start.options:
        yield "--ray-debugger-external", None, "take it out: the debugger would listen everywhere"


def _head(start: Start) -> Iterator[tuple[str, Any, str]]:
    key, options = "head_start_ray_commands", start.options
    if "--head" not in options:
        yield f"{key}: --head", None, "is missing"
    host = options.get("--dashboard-host")
    if host not in LOOPBACK and options.get("--include-dashboard") != "false":
        yield f"{key}: --dashboard-host", host, "set --dashboard-host=127.0.0.1; ssh leads there"
    if options.get("--autoscaling-config") != BOOTSTRAP:
        yield (
            *(f"{key}: --autoscaling-config", options.get("--autoscaling-config")),
            f"set --autoscaling-config={BOOTSTRAP}: else no worker is ever started",
        )
    version = start.environment.get("RAY_enable_autoscaler_v2")
    if version != "0":
        yield (
            *(f"{key}: RAY_enable_autoscaler_v2", version),
            "set RAY_enable_autoscaler_v2=0 before ray start: version 2 never syncs files to "
            "running workers, and leaves a `local` cluster one worker short",
        )


def _worker(start: Start, head: Start | None) -> Iterator[tuple[str, Any, str]]:
    key = "worker_start_ray_commands"
    port = head.options.get("--port", "6379") if head else "6379"
    wanted = f"$RAY_HEAD_IP:{port}"
    if start.options.get("--address") != wanted:
        yield f"{key}: --address", start.options.get("--address"), f"set --address={wanted}"
    if "--head" in start.options:
        yield f"{key}: --head", None, "take it out: each worker would be a cluster of its own"
