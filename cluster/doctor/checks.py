"""What `lenet doctor` thinks of what machines told it.

Pure functions from answers, by machine, to a line for each thing that is wrong, or one that says
that nothing is.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.doctor.facts import Data, Disk, Facts, Listener
from cluster.doctor.findings import CheckReport, Finding
from cluster.doctor.gpus import Gpus
from cluster.doctor.network import LARGE_BYTES, Reduced
from job.engine.accelerator import driver_problem

GIGABYTE = 1e9
# A run writes some megabytes. What fills disks are Ray's logs and spilled objects, and Ray refuses
# work on a disk that is more than 95 % full.
DISK_FAIL_BYTES, DISK_WARN_BYTES, DISK_FAIL_SHARE = 1 * GIGABYTE, 5 * GIGABYTE, 0.95
# The notice that a node will be taken away names a time; `cluster/workers/launch.py` leaves 10 s
# before it.
CLOCK_WARN_SECONDS, CLOCK_FAIL_SECONDS = 1.0, 10.0
# LeNet5's gradients are 1.2 MB a step, and a step takes some 20 ms.
SLOW_LATENCY_SECONDS, SLOW_BANDWIDTH = 0.005, 1e8
SSH_PORT = 22
DASHBOARD_METRICS_PORT = 44227

Versions = Mapping[str, str | None]


def versions(here: Versions, there: Mapping[str, Versions]) -> list[Finding]:
    """Whether packages are installed everywhere, and of the version that is here."""
    said = CheckReport("versions", there)
    for machine, found in there.items():
        missing = [f"{name} is not installed" for name, version in found.items() if not version]
        other = [
            f"{name} {version}, here {here[name] or 'none'}"
            for name, version in found.items()
            if version and version != here[name]
        ]
        problems = missing + other
        if problems:
            fix = "install the same lock everywhere (docs/cluster.md)"
            said.fail(machine, "; ".join(problems), fix)
    return said.or_ok(", ".join(f"{name} {version}" for name, version in here.items()), **here)


def code(here: Mapping[str, str], there: Mapping[str, Mapping[str, str]]) -> list[Finding]:
    """Whether this project's files are those that are here.

    A file that is only there does no harm, and copying to nodes deletes none.
    """
    said = CheckReport("code", there)
    for machine, found in there.items():
        other = [path for path, digest in here.items() if found.get(path) != digest]
        if other:
            more = f" and {len(other) - 1} more" if len(other) > 1 else ""
            fix = "ray up FILE --no-restart (docs/cluster.md, Edited code)"
            said.fail(machine, f"{other[0]}{more}: not what is here", fix)
    return said.or_ok(f"the {len(here)} files that are here")


def gpus(
    answers: Mapping[str, Gpus], by_ray: Mapping[str, float], device: str = "auto"
) -> list[Finding]:
    """Whether TensorFlow and Ray see the GPUs that are there, and whether the driver serves them.

    Args:
        answers: What each machine told.
        by_ray: What Ray has to give; no entry where there is no Ray.
        device: What is to compute, as `--device` names it.
    """
    said = CheckReport("GPUs", answers)
    if device == "cpu":
        return said.or_ok("processors train (--device cpu)")
    for machine, found in answers.items():
        seen, given = len(found.seen), by_ray.get(machine, len(found.seen))
        if found.problem:
            said.fail(machine, found.problem, "docs/gpu.md; --device cpu does without")
        elif given and not found.allowed and found.there:
            fix = "unset CUDA_VISIBLE_DEVICES and RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO there"
            said.warn(machine, "GPUs are hidden from who has none of Ray's, not looked at", fix)
        elif given > seen:
            fix = "correct --num-gpus of ray start"
            said.fail(machine, f"Ray has {given:g} to give, TensorFlow sees {seen}", fix)
        elif seen < found.allowed:
            fix = "nvidia-smi tells more: small or old cards are left alone"
            said.warn(machine, f"TensorFlow sees {seen} of {found.allowed}", fix)
        elif given < seen:
            fix = "start Ray there with --num-gpus"
            said.warn(machine, f"Ray has {given:g} of {seen} to give", fix)
        capability = max((one or (0, 0) for _, one in found.seen), default=None)
        if found.seen and found.driver and (old := driver_problem(found.driver, capability)):
            said.fail(machine, old, "install a newer driver (docs/gpu.md)")
        if found.seen and found.is_divided:
            fix = "nvidia-smi -mig 0, or one worker for each slice's container (docs/gpu.md)"
            said.warn(machine, "MIG is on: a process sees one slice, NCCL joins none", fix)
    figures = {name: len(found.seen) for name, found in answers.items()}
    count = sum(figures.values())
    kinds = ", ".join(dict.fromkeys(filter(None, map(_shown, answers.values()))))
    text = f"{count}, seen by TensorFlow{' and Ray' if by_ray else ''}: {kinds}"
    return said.or_ok(text if count else "none; processors train", **figures)


def _shown(found: Gpus) -> str:
    """A machine's GPUs in words; empty for none."""
    if not found.seen:
        return ""
    name, capability = found.seen[0]
    shown = f" (compute capability {capability[0]}.{capability[1]})" if capability else ""
    return f"{name}{shown}, driver {found.driver or 'unknown'}"


def all_reduce(
    answers: Mapping[str, Reduced],
    *,
    slow_latency: float = SLOW_LATENCY_SECONDS,
    slow_bandwidth: float = SLOW_BANDWIDTH,
) -> list[Finding]:
    """Whether machines add numbers up with each other, and how fast the slowest does."""
    if not answers:
        return []
    said = CheckReport("all-reduce", answers)
    for machine, reduced in answers.items():
        if not reduced.is_right:
            said.fail(machine, "the sum is wrong", "install the same lock and driver everywhere")
    latency = max(reduced.latency for reduced in answers.values())
    bandwidth = min(reduced.bandwidth for reduced in answers.values())
    how = ", ".join({reduced.how for reduced in answers.values()})
    text = (
        f"{how}, {latency * 1000:.2f} ms for 4 bytes, "
        f"{bandwidth / GIGABYTE:.2f} GB/s for {LARGE_BYTES / 2**20:.0f} MiB"
    )
    figures = {
        "nodes": len(answers),
        "how": how,
        "latency_seconds": latency,
        "bytes_per_second": bandwidth,
    }
    if latency > slow_latency or bandwidth < slow_bandwidth:
        said.warn(
            None, text, "take nodes in one zone with a faster network, or one node", **figures
        )
    return said.or_ok(text, **figures)


def disks(
    answers: Mapping[str, tuple[Disk, ...]],
    *,
    fail_below: float = DISK_FAIL_BYTES,
    warn_below: float = DISK_WARN_BYTES,
    fail_above: float = DISK_FAIL_SHARE,
) -> list[Finding]:
    """Whether there is room where runs write."""
    said = CheckReport("disk", answers)
    every = [(machine, disk) for machine, disks in answers.items() for disk in disks]
    for machine, disk in every:
        used = 1 - disk.free / disk.total
        text = f"{disk.free / GIGABYTE:,.1f} GB free at {disk.folder} ({used:.0%} used)"
        if disk.free < fail_below or used > fail_above:
            said.fail(machine, text, "make room, or take a larger disk")
        elif disk.free < warn_below:
            said.warn(machine, text, "make room, or take a larger disk")
    least = min((disk.free for _, disk in every), default=0)
    return said.or_ok(f"{least / GIGABYTE:,.1f} GB free or more", least_free_bytes=least)


def clocks(
    answers: Mapping[str, tuple[float, float]],
    *,
    warn_above: float = CLOCK_WARN_SECONDS,
    fail_above: float = CLOCK_FAIL_SECONDS,
) -> list[Finding]:
    """Whether machines agree about the time with the one that asks.

    Args:
        answers: Seconds by which each is ahead, and by how much that may be wrong.
        warn_above: Seconds.
        fail_above: Seconds.
    """
    said = CheckReport("clocks", answers)
    for machine, (ahead, doubt) in answers.items():
        apart = abs(ahead) - doubt
        text = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the one here"
        if apart > fail_above:
            said.fail(machine, text, "let NTP set it: timedatectl set-ntp true")
        elif apart > warn_above:
            said.warn(machine, text, "let NTP set it: timedatectl set-ntp true")
    most = max((abs(ahead) + doubt for ahead, doubt in answers.values()), default=0)
    return said.or_ok(f"at most {most * 1000:.0f} ms from the one here", most_seconds=most)


def data(answers: Mapping[str, Data], *, is_named: bool) -> list[Finding]:
    """Whether what a run trains on is there, and is what was published.

    Args:
        answers: What each machine found.
        is_named: The user says where it is; else runs download what is missing.
    """
    said = CheckReport("data", answers)
    for machine, found in answers.items():
        if found.problem and is_named:
            fix = "stage it where all nodes reach it: lenet data stage s3://BUCKET/PREFIX"
            said.fail(machine, f"{found.place}: {found.problem}", fix)
        elif found.problem:
            fix = "runs will download it; stage it and name it with --data to be sure"
            said.warn(machine, f"{found.place}: {found.problem}", fix)
    places = ", ".join(sorted({found.place for found in answers.values()}))
    return said.or_ok(f"{places}, every byte verified")


def storage(uri: str, answers: Mapping[str, str | None]) -> list[Finding]:
    """Whether runs can be kept there.

    Args:
        uri: Where.
        answers: What is wrong with it on each machine.
    """
    said = CheckReport("storage", answers)
    for machine, problem in answers.items():
        if problem:
            fix = "docs/storage.md says what runs ask of a place"
            said.fail(machine, f"{uri}: {problem}", fix)
    return said.or_ok(f"{uri}, writable, with conditional writes")


def token(answers: Mapping[str, Facts]) -> list[Finding]:
    """Whether Ray asks for its token, and nobody else on the machine can read that."""
    said = CheckReport("token", answers)
    for machine, found in answers.items():
        if found.auth_mode not in (None, "token"):
            fix = "RAY_AUTH_MODE=token before each ray start (docs/security.md)"
            said.fail(machine, "Ray does not ask for one: who reaches it runs anything", fix)
        if found.token_mode is not None and found.token_mode & 0o077:
            said.warn(machine, "others on the machine can read it", "chmod 600 ~/.ray/auth_token")
    is_asked = any(found.auth_mode for found in answers.values())
    return said.or_ok("Ray asks for it" if is_asked else "no cluster, none needed")


def ports(answers: Mapping[str, Facts]) -> list[Finding]:
    """Whether machines are open to others only where docs/cluster.md says so."""
    said = CheckReport("ports", answers)
    for machine, found in answers.items():
        unlisted = [listener for listener in found.listeners if not _is_listed(listener, found)]
        for listener in unlisted:
            if listener.kind == "dashboard":
                text = f"the dashboard ({listener.port}) is open to other machines, and takes jobs"
                said.fail(machine, text, "ray start --dashboard-host=127.0.0.1 (docs/security.md)")
        others = {o.port: o.process or "another user's" for o in unlisted if o.kind != "dashboard"}
        if others:
            shown = ", ".join(f"{port} ({process})" for port, process in others.items())
            fix = "bind to 127.0.0.1, or see that a firewall is before it (docs/cluster.md, Ports)"
            said.warn(machine, f"open to other machines: {shown}", fix, ports=list(others))
    return said.or_ok("open to other machines: ssh and Ray's, as docs/cluster.md lists")


def _is_listed(listener: Listener, found: Facts) -> bool:
    if listener.kind == "dashboard":
        # KubeRay asks there how its job stands; a NetworkPolicy says who else may.
        return listener.port == DASHBOARD_METRICS_PORT or found.in_kubernetes
    return listener.kind == "ray" or listener.port == SSH_PORT
