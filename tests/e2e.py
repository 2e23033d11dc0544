"""Clusters from `ray up` to `ray down` on simulated hosts: what `make e2e` runs.

    python tests/e2e.py [--out FILE] [PYTEST ARGUMENTS]

Prepares what needs this machine's own network, once: Debian's packages, the nodes' environment as
`cluster/install.sh` makes it, and MNIST. Then runs tests/test_e2e.py in namespaces of its own,
which take every process, network link and mount with them when they end, and prints the wall times.
Needs root.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from lab import INSIDE, USER, USER_ID

ROOT = Path(__file__).parents[1]
WORK = ROOT / "build" / "e2e"
# The nodes' environment, in a home folder with the name that it has on them.
VENV = f"home/{USER}/lenet-venv"
PACKAGES = {
    "ip": "iproute2",
    "sshd": "openssh-server",
    "rsync": "rsync",
    "ensurepip": "python3-venv",
}
PROJECT = (
    *("job", "cluster", "tuning", "pyproject.toml", "README.md", "LICENSE"),
    *("requirements-cluster.lock", "requirements-gpu.lock"),
)
# How this machine reaches its package registries.
VARIABLE = re.compile(r"^(PIP_|SSL_CERT|REQUESTS_CA|https?_proxy|no_proxy)", re.IGNORECASE)


def prepare(work: Path) -> None:
    """Everything for which the lab's hosts would need a network. Raises CalledProcessError."""
    missing = [package for name, package in PACKAGES.items() if not _is_here(name)]
    if missing:
        quiet = ["apt-get", "--quiet=2"]
        subprocess.run([*quiet, "update"], check=True)
        install = [*quiet, "install", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    install_node(work)
    from job.download import obtain

    obtain("mnist")


def _is_here(name: str) -> bool:
    if name == "ensurepip":
        return subprocess.run(["/usr/bin/python3", "-c", "import ensurepip"]).returncode == 0
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
    given = [f"{name}={value}" for name, value in os.environ.items() if VARIABLE.match(name)]
    subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-euc"),
            'mount --bind "$0" /home; shift 0; exec "$@"',
            *(work / "home", "setpriv", f"--reuid={USER_ID}", f"--regid={USER_ID}"),
            *("--clear-groups", "env", "-i", f"HOME=/home/{USER}", *given),
            *("PATH=/usr/bin:/bin", "bash", f"/home/{USER}/lenet/cluster/install.sh"),
        ],
        check=True,
        cwd="/",
    )


def report(outcome: dict[str, Any]) -> str:
    """The wall times as tables."""
    return json.dumps(outcome)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, help="where the wall times are written as JSON")
    arguments, others = parser.parse_known_args()
    prepare(WORK)
    command = [
        *("setpriv", "--pdeathsig=KILL", "unshare", "--net", "--mount", "--pid", "--ipc"),
        *("--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
        *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
        *(sys.executable, "-m", "pytest", "--e2e", ROOT / "tests" / "test_e2e.py", *others),
    ]
    if arguments.out:
        command += ["--e2e-out", arguments.out]
    code = subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode
    if code == 0 and arguments.out:
        print(report(json.loads(arguments.out.read_text())))
    sys.exit(code)


if __name__ == "__main__":
    main()
