"""What would go wrong with a cluster file, found before anything is started or paid for.

Ray checks such a file only loosely: a misspelt key of the cloud's is passed on, and what is missing
is filled with defaults that install unpinned packages, let the whole internet at port 22 and have
the dashboard listen everywhere. Here everything that this project's clusters rely on is asked for.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster import ray_private
from cluster.files.start_commands import start_problems
from job.config.strict_yaml import StrictLoader
from job.errors import nearest
from job.reasons import text_of

# What Ray reads of `provider`.
PROVIDER_KEYS = {
    "aws": (
        *("type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips"),
        *("use_external_head_ip", "security_group", "key_pair", "aws_credentials", "cloudwatch"),
        *("disable_node_updaters", "disable_launch_config_check", "foreground_node_launch"),
        "worker_liveness_check",
    ),
    "local": (
        *("type", "head_ip", "worker_ips", "external_head_ip", "use_internal_ips"),
        "coordinator_address",
    ),
}
# Where a cluster file leaves one of these out, Ray runs commands of its own.
COMMANDS = {
    "setup_commands": "Ray installs a nightly build of itself",
    "head_setup_commands": "Ray installs boto3 unpinned",
    "head_start_ray_commands": "Ray's dashboard listens on all addresses, without a token",
    "worker_start_ray_commands": "workers start without token and fault detection",
}
TOKEN = "~/.ray/auth_token"
# What a node needs of this project, and nothing else should be sent.
PROJECT = (
    *("job", "cluster", "tuning", "pyproject.toml", "README.md", "LICENSE"),
    *("requirements-cluster.lock", "requirements-gpu.lock"),
)
SECRETS = {
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b": "an AWS access key",
    r"AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|aws_secret_access_key": "AWS credentials",
    r"RAY_AUTH_TOKEN\s*[=:]": "Ray's token",
    r"s3://[^/@\s]+:[^/@\s]+@": "credentials in a URI",
}
WORLD = re.compile(r"(?<![\d.])0\.0\.0\.0|(?<![\w:])::/0|\[::\]")

Problem = tuple[str, Any, str]


def problems(path: str | Path) -> list[str]:
    """Checks a cluster file for `ray up`, or a KubeRay RayJob, without any network.

    Local paths in it are looked up as Ray does: from the working folder.

    Returns:
        A line for each problem, with the key, its value where there is one, and the fix.
    """
    try:
        documents = list(yaml.load_all(Path(path).read_text(), Loader=StrictLoader))
    except OSError as error:
        return [_line((str(path), None, f"can't be read: {text_of(error)}"))]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        return [_line((str(path), None, f"is no YAML: {' '.join(str(error).split())}"))]
    if not documents or not all(isinstance(document, dict) for document in documents):
        return [_line((str(path), None, "is no mapping of keys to values"))]
    if "apiVersion" in documents[0]:
        from cluster.files.rayjob_file import rayjob_problems

        return [_line(p) for p in (*rayjob_problems(documents), *_unsafe(documents))]
    if len(documents) > 1:
        return [_line((str(path), None, "holds several documents; Ray reads one"))]
    return [_line(problem) for problem in dict.fromkeys(_all(documents[0]))]


def _line(problem: Problem) -> str:
    key, value, text = problem
    return f"{key}: {text}" if value is None else f"{key} {value!r}: {text}"


def _all(config: dict[str, Any]) -> Iterator[Problem]:
    found = [*_shape(config)]
    if found:
        # The others would stumble over it.
        yield from found
        return
    for check in (_identity, _provider, _mounts, _setup, start_problems):
        yield from check(config)
    if config["provider"]["type"] == "aws":
        from cluster.files.aws_nodes import node_problems

        yield from node_problems(config)
    yield from _unsafe(config)
    yield from _rays_own(config)


def _shape(config: dict[str, Any]) -> Iterator[Problem]:
    """Whether each section is of the right kind, and known."""
    import ray.autoscaler

    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    known = json.loads(schema.read_text())["properties"]
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "integer": int}
    for key, value in config.items():
        if key not in known:
            yield key, None, f"Ray knows no such key{nearest(key, known)}"
            continue
        kind = "array" if "$ref" in known[key] else known[key].get("type")
        if kind in kinds and not isinstance(value, kinds[kind]):
            yield key, value, f"must be a YAML {kind}"
    if not isinstance(config.get("provider"), dict):
        yield "provider", None, "is missing; it says where the machines come from"
    elif config["provider"].get("type") not in PROVIDER_KEYS:
        choices = " or ".join(PROVIDER_KEYS)
        yield "provider.type", config["provider"].get("type"), f"must be {choices}"


def _identity(config: dict[str, Any]) -> Iterator[Problem]:
    if not config.get("cluster_name"):
        yield (
            *("cluster_name", None),
            "is missing; without it all such clusters are one, called 'default'",
        )
    auth = config.get("auth", {})
    if not auth.get("ssh_user"):
        yield "auth.ssh_user", None, "is missing; give the account on the machines"
    key = auth.get("ssh_private_key")
    if key and not Path(os.path.expanduser(key)).is_file():
        yield "auth.ssh_private_key", key, "there is no such file"
    limit = config.get("max_workers", 1)
    if limit < 1:
        yield "max_workers", limit, "leaves no worker; give 1 or more"


def _provider(config: dict[str, Any]) -> Iterator[Problem]:
    provider = config["provider"]
    known = PROVIDER_KEYS[provider["type"]]
    for key in provider:
        if key not in known:
            yield f"provider.{key}", None, f"Ray reads no such key{nearest(key, known)}"
    if provider["type"] == "local":
        workers = provider.get("worker_ips") or []
        if not provider.get("head_ip"):
            yield "provider.head_ip", None, "is missing; give the head's address"
        if not workers:
            yield "provider.worker_ips", None, "is missing; list the workers' addresses"
        for address in {*workers}:
            if workers.count(address) > 1 or address == provider.get("head_ip"):
                yield "provider.worker_ips", address, "is there twice, or is the head's"
        return
    if not provider.get("region"):
        yield "provider.region", None, "is missing; give the region, such as us-west-2"
    elif zones := provider.get("availability_zone"):
        for zone in str(zones).split(","):
            if not zone.strip().startswith(provider["region"]):
                yield "provider.availability_zone", zone, f"is not in {provider['region']}"
    if provider.get("cache_stopped_nodes", True):
        yield (
            *("provider.cache_stopped_nodes", provider.get("cache_stopped_nodes")),
            "set it to false: else `ray down` only stops machines, and their disks are paid for",
        )
    if "aws_credentials" in provider:
        yield "provider.aws_credentials", None, "take it out; keys belong in ~/.aws or a role"


def _mounts(config: dict[str, Any]) -> Iterator[Problem]:
    mounts = config.get("file_mounts", {})
    for remote, local in mounts.items():
        if not isinstance(local, str) or not Path(os.path.expanduser(local)).exists():
            hint = "; make it: (umask 077; ray get-auth-token --generate > /dev/null)"
            yield f"file_mounts.{remote}", local, f"is not here{hint * (local == TOKEN)}"
        elif Path(local).resolve() == Path.cwd():
            yield (
                *(f"file_mounts.{remote}", local),
                f"mount {', '.join(PROJECT)} one by one: Ray reads every byte below, .venv too",
            )
    locals_ = {str(local).rstrip("/").removeprefix("./") for local in mounts.values()}
    for part in PROJECT:
        if part not in locals_:
            yield f"file_mounts.~/lenet/{part}", None, f"is missing; the nodes need {part}"
    roots = {remote.rstrip("/")[: -len(name)] for remote, name in mounts.items() if name in PROJECT}
    if len(roots) > 1:
        yield "file_mounts", None, f"the project is in {len(roots)} places; use one: ~/lenet"
    if mounts.get(TOKEN) is None:
        yield f"file_mounts.{TOKEN}", None, f"is missing; add {TOKEN}: {TOKEN}"
    else:
        source = Path(os.path.expanduser(str(mounts[TOKEN])))
        if source.exists() and source.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"file_mounts.{TOKEN}", str(source), "others can read it; chmod 600 it"
    if config.get("file_mounts_sync_continuously") is not True:
        yield (
            *("file_mounts_sync_continuously", config.get("file_mounts_sync_continuously")),
            "set it to true: else edited code never reaches running workers",
        )


def _setup(config: dict[str, Any]) -> Iterator[Problem]:
    on_aws = config["provider"]["type"] == "aws"
    for key, consequence in COMMANDS.items():
        needed = on_aws or key.endswith("start_ray_commands")
        if key not in config and needed:
            yield key, None, f"is missing; then {consequence}; take it from ray_cluster.yaml"
    commands = [str(command) for command in config.get("setup_commands", ())]
    installing = [c for c in commands if "cluster/install.sh" in c or "--require-hashes" in c]
    if not installing:
        yield (
            "setup_commands",
            None,
            "add bash ~/lenet/cluster/install.sh: else nothing is installed",
        )
    if not any("chmod 600" in c and ".ray/auth_token" in c for c in commands):
        yield "setup_commands", None, f"nothing protects the token; add chmod 600 {TOKEN}"
    region = config["provider"].get("region")
    for command in installing:
        for name, value in re.findall(r"\b(AWS_REGION|AWS_DEFAULT_REGION)=(\S+)", command):
            if on_aws and value != region:
                yield "setup_commands", f"{name}={value}", f"is not provider.region ({region})"
    for part in ("setup", "head_setup", "worker_setup"):
        for command in config.get(f"{part}_commands", ()):
            if "pip install" in str(command) and "--require-hashes" not in str(command):
                yield f"{part}_commands", command, "is not pinned; use the lock, --require-hashes"


def _unsafe(config: Any) -> Iterator[Problem]:
    """Values that open a door or give a secret away, wherever they stand."""
    for path, value in _values(config):
        if WORLD.search(value):
            yield path, value, "lets everyone in; name an address, or 127.0.0.1"
        for pattern, what in SECRETS.items():
            if re.search(pattern, f"{path}={value}"):
                # Its value is not repeated.
                yield path, None, f"holds {what}; take it out, see docs/security.md"


def _values(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, dict | list):
        items = config.items() if isinstance(config, dict) else enumerate(config)
        for key, value in items:
            step = f"[{key}]" if isinstance(config, list) else f".{key}"
            yield from _values(value, (path + step).removeprefix("."))
    elif isinstance(config, str):
        yield path, config


def _rays_own(config: dict[str, Any]) -> Iterator[Problem]:
    """What Ray's own check finds, which prints as it goes and may want to leave the process."""
    import jsonschema

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logging.disable(logging.WARNING)
        try:
            ray_private.check_cluster_file(json.loads(json.dumps(config)))
        except jsonschema.ValidationError as error:
            where = ".".join(str(part) for part in error.absolute_path) or "the file"
            yield where, None, error.message
        except (Exception, SystemExit) as error:
            yield "the file", None, f"Ray refuses it: {' '.join(str(error).split())}"
        finally:
            logging.disable(logging.NOTSET)
