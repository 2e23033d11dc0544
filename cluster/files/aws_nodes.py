"""The node types of a cluster file for AWS.

Ray passes `node_config` to EC2's RunInstances as it is, so a misspelt key is found when the first
machine is asked for, or never. The keys and types are those of botocore's own description.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from job.errors import nearest

# What Ray reads and replaces itself.
RAYS_KEYS = ("SubnetIds",)
NEEDED = ("InstanceType", "ImageId")


def node_problems(config: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Problems of all node types, as (key, value, text)."""
    types = config.get("available_node_types")
    head = config.get("head_node_type")
    if not isinstance(types, dict) or not types:
        yield "available_node_types", None, "is missing; describe head and workers"
        return
    if head not in types:
        yield "head_node_type", head, f"is none of available_node_types{nearest(str(head), types)}"
    limit = config.get("max_workers", 0)
    for name, kind in types.items():
        path = f"available_node_types.{name}"
        node = kind.get("node_config") if isinstance(kind, dict) else None
        if not isinstance(node, dict):
            yield f"{path}.node_config", None, "is missing; give InstanceType, ImageId and so on"
            continue
        yield from _keys(node, _run_instances(), f"{path}.node_config")
        yield from _wanted(node, f"{path}.node_config", is_head=name == head)
        most = kind.get("max_workers", limit)
        if name != head and isinstance(most, int) and most > limit:
            yield f"{path}.max_workers", most, f"is more than max_workers ({limit})"
        if name != head and isinstance(most, int) and most < 1:
            yield f"{path}.max_workers", most, "no such worker can come; give 1 or more"
    if len(types) < 2:
        yield "available_node_types", None, "holds no type of worker"


@functools.cache
def _run_instances() -> Any:
    import botocore.session

    model = botocore.session.Session().get_service_model("ec2")
    return model.operation_model("RunInstances").input_shape


def _keys(value: Any, shape: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """Compares a value with EC2's description of it, all the way down."""
    kinds = {"structure": dict, "list": list, "string": str, "boolean": bool, "integer": int}
    kind = kinds.get(shape.type_name)
    if kind and (not isinstance(value, kind) or (kind is int and isinstance(value, bool))):
        yield path, value, f"must be a {shape.type_name}"
    elif kind is dict:
        known = {**shape.members, **(dict.fromkeys(RAYS_KEYS) if _is_root(shape) else {})}
        for key, item in value.items():
            if key not in known:
                yield f"{path}.{key}", None, f"EC2 knows no such key{nearest(key, known)}"
            elif key in shape.members:
                yield from _keys(item, shape.members[key], f"{path}.{key}")
    elif kind is list:
        for index, item in enumerate(value):
            yield from _keys(item, shape.member, f"{path}[{index}]")
    elif kind is str and getattr(shape, "enum", None) and value not in shape.enum:
        yield path, value, f"EC2 knows no such value{nearest(value, shape.enum)}"


def _is_root(shape: Any) -> bool:
    return shape is _run_instances()


def _wanted(node: dict[str, Any], path: str, *, is_head: bool) -> Iterator[tuple[str, Any, str]]:
    for key in NEEDED:
        if not node.get(key):
            yield f"{path}.{key}", None, "is missing"
    if not node.get("IamInstanceProfile"):
        consequence = (
            "Ray makes a role that may do everything with EC2 and S3"
            if is_head
            else "workers can't use the bucket"
        )
        yield f"{path}.IamInstanceProfile", None, f"is missing; then {consequence}; see cluster/iam"
    interfaces = node.get("NetworkInterfaces") or []
    if not node.get("SecurityGroupIds") and not all(i.get("Groups") for i in interfaces or [{}]):
        yield (
            *(f"{path}.SecurityGroupIds", None),
            "is missing; then Ray makes a group that lets the whole internet at port 22",
        )
    options = node.get("MetadataOptions") or {}
    if options.get("HttpTokens") != "required":
        yield (
            *(f"{path}.MetadataOptions.HttpTokens", options.get("HttpTokens")),
            "set it to required: else a forged request gets the role's credentials",
        )
