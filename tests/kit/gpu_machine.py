"""A machine with an NVIDIA device that nothing can use: a mount namespace, which leaves the real
`/dev` alone."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

DRIVER = "570.86.15"
# $1 becomes /dev, $2 is the driver's version, or empty.
MAKE = """
set -eu
for name in null zero full random urandom tty; do
  : > "$1/$name"; mount --bind "/dev/$name" "$1/$name"
done
for name in shm pts; do
  mkdir "$1/$name"; mount --rbind "/dev/$name" "$1/$name"
done
cp -P /dev/fd /dev/stdin /dev/stdout /dev/stderr "$1"
: > "$1/nvidia0"; : > "$1/nvidiactl"
mount --rbind "$1" /dev
if [ -n "$2" ]; then
  mount -t tmpfs none /proc/driver
  mkdir /proc/driver/nvidia
  echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  $2  Tue Jan 14 22:34:18 UTC 2025" \
    > /proc/driver/nvidia/version
fi
shift 2
exec "$@"
"""


def on_gpu_machine(folder: Path, command: Sequence[str], driver: str = DRIVER) -> list[str]:
    """A command that runs another one there.

    Args:
        folder: A new one, which becomes its `/dev`.
        command: The other.
        driver: The version of the driver that the kernel claims to have; empty for none.
    """
    folder.mkdir()
    apart = ["unshare", "--mount", "--propagation", "private", "sh", "-c", MAKE, "sh"]
    return [*apart, str(folder), driver, *command]


def problem(folder: Path) -> str:
    """Why there can be no such machine here; empty where there can."""
    tried = subprocess.run(on_gpu_machine(folder, ["true"]), capture_output=True, text=True)
    return "" if tried.returncode == 0 else f"no mount namespace: {tried.stderr.strip()}"
