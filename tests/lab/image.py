"""Builds the Dockerfile without a container engine, and trains in what comes out.

    sudo python -m tests.lab.image --work FOLDER [--lock requirements-gpu.lock]

The base image is replaced by a small Debian 12 with its own Python 3.11, made by debootstrap; the
Dockerfile's steps are run on it in order, with chroot. Then, as the image's user and without a
network: a Ray node with its health check, and a smoke run on two workers. What this can't show:
that the base image with that digest exists, and the size and layers of a real image. Needs
debootstrap, unshare and ip.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.lab.dockerfile import Stage, command_of, context, read_stages
from tests.lab.registries import registry_settings

ROOT = Path(__file__).parents[2]
SMOKE = ("--limit-train", "2560", "--epochs", "1", "--batch-size", "128")
# How this machine reaches its package registries, for the RUN steps only.
SHARED = ("/etc/pip.conf", "/etc/apt", "/etc/ssl", "/etc/resolv.conf", "/etc/hosts")
# Other Ray clusters on this machine are not seen, and not disturbed.
ALONE = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
NODE = "ray start --head --num-cpus=1 --dashboard-host=127.0.0.1 > /dev/null"


class Image:
    """A root folder with the settings that its Dockerfile has given it so far."""

    def __init__(self, root: Path, arguments: dict[str, str]) -> None:
        self.root, self.arguments = root, arguments
        self.environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        self.folder, self.user = "/", "0:0"
        self.defined: dict[str, str] = {}
        self.health: list[str] = []

    def build(self, stage: Stage, built: dict[str, Image]) -> None:
        for word, text in stage.steps:
            started = time.monotonic()
            match word:
                case "ARG":
                    name, _, default = text.partition("=")
                    self.defined[name] = self.arguments.get(name, default)
                case "ENV":
                    for pair in shlex.split(self._expanded(text)):
                        name, _, value = pair.partition("=")
                        self.environment[name] = value
                case "WORKDIR":
                    self.folder = text
                    (self.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                case "USER":
                    self.user = text
                case "HEALTHCHECK":
                    self.health = command_of(text)
                case "COPY":
                    self._copy(shlex.split(text), built)
                case "RUN":
                    self.run(["sh", "-c", text], building=True)
            print(f"{time.monotonic() - started:6.1f} s  {word} {text[:80]}", flush=True)

    def _expanded(self, text: str) -> str:
        known = {**self.defined, **self.environment}
        return re.sub(r"\$(\w+)", lambda name: known.get(name[1], ""), text)

    def _copy(self, words: list[str], built: dict[str, Image]) -> None:
        options = [word for word in words if word.startswith("--")]
        *sources, target = [word for word in words if not word.startswith("--")]
        place = self.root / os.path.join(self.folder, target).lstrip("/")
        if options:
            origin = built[options[0].removeprefix("--from=")].root
            shutil.copytree(origin / sources[0].lstrip("/"), place, symlinks=True)
            return
        for source in sources:
            names = [n for n in context(ROOT) if n == source or n.startswith(f"{source}/")]
            if not names:
                raise SystemExit(f"COPY {source}: not in the context; see .dockerignore")
            for name in names:
                inside = name.removeprefix(source).lstrip("/") or Path(name).name
                copy = place / inside
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / name, copy)

    def run(self, command: list[str], *, building: bool = False) -> None:
        """Runs a command as the image's user in its folder: while building with this machine's
        network and registries, else with no network but its own. Raises CalledProcessError."""
        environment = {**self.defined, **self.environment} if building else self.environment
        if building:
            given = registry_settings()
            environment = {**given, **environment}
            for path in [*SHARED, *filter(os.path.isdir, given.values())]:
                self._show(Path(path))
        home = "/root" if self.user.startswith("0") else "/home/lenet"
        inside = f"cd {shlex.quote(self.folder)} && exec {shlex.join(command)}"
        try:
            subprocess.run(
                [
                    *(() if building else ALONE),
                    *("chroot", f"--userspec={self.user}", self.root, "sh", "-c", inside),
                ],
                env={"HOME": home, **environment},
                check=True,
            )
        finally:
            if building:
                self._hide()

    def mount_system(self) -> None:
        """What every container has; all of it goes with this process' namespace."""
        for kind, name in (("proc", "proc"), ("tmpfs", "dev/shm")):
            (self.root / name).mkdir(parents=True, exist_ok=True)
            mount("-t", kind, kind, self.root / name)
        for name in ("null", "zero", "full", "random", "urandom"):
            (self.root / "dev" / name).touch()
            mount("--bind", f"/dev/{name}", self.root / "dev" / name)
        for name in ("tmp", "dev/shm"):
            (self.root / name).chmod(0o1777)

    def _show(self, path: Path) -> None:
        target = self.root / str(path).lstrip("/")
        if not path.exists():
            return
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        mount("--bind", path, target)
        mount("-o", "remount,bind,ro", target)
        self._shown = [*getattr(self, "_shown", []), target]

    def _hide(self) -> None:
        for target in reversed(getattr(self, "_shown", [])):
            subprocess.run(["umount", target], check=True)
        self._shown = []


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def base(work: Path, suite: str = "bookworm", packages: str = "ca-certificates") -> Path:
    """A Debian with its Python, made once."""
    root = work / suite
    if not (root / ".done").exists():
        include = f"--include=python3,python3-venv,ca-certificates,{packages}"
        command = ["debootstrap", "--variant=minbase", include, suite, root]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (root / ".done").touch()
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="scratch folder, some 10 GB")
    parser.add_argument("--lock", default="requirements-cluster.lock", help="the build argument")
    arguments = parser.parse_args()
    if os.environ.get("LENET_IMAGE_NAMESPACE") is None:
        os.environ["LENET_IMAGE_NAMESPACE"] = "1"
        # Mounts and processes end with it.
        here = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]
        here += [sys.executable, "-m", __spec__.name, *sys.argv[1:]]
        os.execvp(here[0], here)

    arguments.work.mkdir(parents=True, exist_ok=True)
    debian = base(arguments.work)
    built: dict[str, Image] = {}
    for index, stage in enumerate(read_stages((ROOT / "Dockerfile").read_text())):
        root = arguments.work / f"stage-{index}"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["cp", "-a", debian, root], check=True)
        image = built[stage.name or ""] = Image(root, {"LOCK": arguments.lock})
        image.mount_system()
        image.build(stage, built)

    from job.data.sources import obtain

    data = image.root / "data"
    data.mkdir()
    for name, content in obtain("mnist").items():
        (data / name).write_bytes(content)
    print(f"as {image.user} in {image.folder}:", flush=True)
    image.run(["sh", "-c", "test $(id -u) != 0 && ! touch /opt/lenet/src/x 2> /dev/null"])
    image.run(image.health)
    image.run(["sh", "-c", f"{NODE} && sleep 5 && {shlex.join(image.health)} && ray stop"])
    smoke = ["lenet", "train", "--workers", "2", "--address", "local", "--data", "/data"]
    smoke += ["--name", "smoke", *SMOKE]
    image.run(smoke)
    result = json.loads((image.root / "home/lenet/runs/smoke/result.json").read_text())
    print(f"smoke run on 2 workers: test accuracy {result['test_accuracy']:.2%}")


if __name__ == "__main__":
    main()
