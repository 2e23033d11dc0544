"""Clusters from `ray up` to `ray down` on simulated hosts: what `make e2e` runs.

    python -m tests.lab.e2e [--out FILE]      # all of it
    python -m tests.lab.e2e tests/lab/test_e2e.py -k token ...     # as pytest, without the tables

Prepares what needs this machine's own network, once: Debian's packages, the nodes' environment as
`cluster/install.sh` makes it, and MNIST. Then runs the tests in namespaces of its own, which
take every process, network link and mount with them when they end, and prints the wall times.
Needs root.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.lab.lab import INSIDE, USER, USER_ID
from tests.lab.registries import registry_settings

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "e2e"
# The nodes' environment, in a home folder with the name that it has on them.
VENV = f"home/{USER}/lenet-venv"
TESTS = ("test_e2e.py", "test_e2e_aws.py")
PACKAGES = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "ensurepip": "python3-venv",
}
PROJECT = (
    *("job", "cluster", "tuning", "pyproject.toml", "README.md", "LICENSE"),
    *("requirements-uv.lock", "requirements-cluster.lock", "requirements-gpu.lock"),
)


def prepare(work: Path) -> None:
    """Everything for which the lab's hosts would need a network. Raises CalledProcessError."""
    missing = [package for name, package in PACKAGES.items() if not _is_here(name)]
    if missing:
        with no_services():
            quiet = ["apt-get", "--quiet=2"]
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            subprocess.run([*quiet, "update"], check=True)
            install = [*quiet, "install", "--no-install-recommends", *missing]
            subprocess.run(install, check=True, env=env)
    install_node(work)
    from job.data.sources import obtain

    obtain("mnist")


@contextlib.contextmanager
def no_services() -> Iterator[None]:
    """Packages that are installed in the block start nothing: sshd would listen everywhere."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def _is_here(name: str) -> bool:
    if name == "ensurepip":
        command = ["/usr/bin/python3", "-c", "import ensurepip"]
        return subprocess.run(command, capture_output=True).returncode == 0
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None


def install_node(work: Path) -> None:
    """Runs `cluster/install.sh` as the nodes' user, in the home folder that nodes have, on this
    machine's network. Takes minutes, or a second where nothing has changed since."""
    home = work / "home" / USER
    project = home / "lenet"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    for name in PROJECT:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, project / name, ignore=ignored)
        else:
            shutil.copyfile(source, project / name)
    subprocess.run(["chown", "--recursive", f"{USER_ID}:{USER_ID}", home], check=True)
    subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-euc"),
            *('mount --bind "$0" /home; exec "$@"', work / "home"),
            *("setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups"),
            *("bash", f"/home/{USER}/lenet/cluster/install.sh"),
        ],
        env={
            "HOME": f"/home/{USER}",
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            **registry_settings(),
        },
        check=True,
        cwd="/",
    )


FORMS = {"onprem": "`cluster/onprem.yaml`", "aws": "`ray_cluster.yaml`, on a mock of EC2"}
COMMANDS = {
    "up": "`ray up`",
    "submit": "`ray submit`",
    "exec": "`ray exec`",
    "edit": "an edit on all nodes",
    "down": "`ray down`",
}
LOSSES = {"cut": "a worker's cable", "reclaim": "a worker's spot instance"}
MOMENTS = {
    "noticed": "the other worker's attempt ended",
    "dead": "Ray counts the node as dead",
    "again": "taken up from the checkpoint",
    "end": "end of the run",
}


def report(outcome: dict[str, Any]) -> str:
    """The wall times as Markdown tables."""
    about = outcome["about"]
    return "\n".join(
        [
            *table("seconds", FORMS, COMMANDS, outcome),
            "",
            *table("lost; seconds from then", LOSSES, MOMENTS, outcome),
            "",
            "Three hosts, two workers of one processor each, 3 epochs of 12,000 rows; `ray submit` "
            "right after `ray up`, so it waits for the workers' machines; the environment is "
            f"installed already. {about['date']}, {about['device']}; ray {about['ray']}.",
        ]
    )


def table(
    corner: str, rows: dict[str, str], columns: dict[str, str], outcome: dict[str, Any]
) -> list[str]:
    lines = [f"| {' | '.join([corner, *columns.values()])} |", "|---" * (1 + len(columns)) + "|"]
    for key, title in rows.items():
        figures = outcome[key]
        cells = [f"{figures[name]:.1f}" if name in figures else "" for name in columns]
        lines.append(f"| {' | '.join([title, *cells])} |")
    return lines


def about() -> dict[str, str]:
    """When and on what it was measured."""
    from job.engine.runtime import device_name

    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": date, "device": device_name("cpu"), "ray": importlib.metadata.version("ray")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where the wall times are written as JSON")
    arguments, others = parser.parse_known_args()
    if os.geteuid() != 0:
        sys.exit("tests/lab/e2e.py makes network namespaces and mounts: call it as root")
    prepare(WORK)
    figures = WORK / "figures.json"
    figures.write_text(json.dumps({"about": about()}))
    code = subprocess.run(
        [
            *("setpriv", "--pdeathsig=KILL"),
            *("unshare", "--net", "--mount", "--pid", "--ipc"),
            *("--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
            *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
            *(sys.executable, "-m", "pytest", "--e2e", "--e2e-out", figures),
            *(others or [ROOT / "tests" / "lab" / name for name in TESTS]),
        ],
        env={**os.environ, INSIDE: "1"},
    ).returncode
    if code == 0 and not others:
        outcome = json.loads(figures.read_text())
        print(report(outcome))
        if arguments.out:
            arguments.out.write_text(json.dumps(outcome, indent=1) + "\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
