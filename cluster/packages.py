"""Installs locked packages into the Python that runs this: with uv, which is fast, else with pip.

    python cluster/packages.py requirements.lock [requirements-report.lock ...]

The Makefile and the nodes of a cluster call it, before anything is installed: it needs the standard
library and pip alone. uv itself comes from a lock. It does not read pip's configuration, files or
variables, so it is told here what that says of where packages are. Every file has to have the hash
of its lock, whoever brings it.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
UV_LOCK = ROOT / "requirements-uv.lock"
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
QUIET = ("install", "--quiet", "--require-hashes")
# pip's settings, and uv's variables of the same meaning.
# https://docs.astral.sh/uv/reference/environment/
MEANINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
    "proxy": "ALL_PROXY",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def settings(listed: str) -> dict[str, str]:
    """What `pip config list` says: for each setting what counts, by its name.

    A setting of one command goes before one of all, and a variable before both.
    """
    found: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        key, is_setting, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if is_setting and section in ("global", "install", ":env:"):
            found.setdefault(section, {})[name] = ast.literal_eval(value)
    merged: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        merged |= found.get(section, {})
    return merged


def uv_environment(pip: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which uv finds what pip finds; what is set for uv already stays.

    Args:
        pip: Its settings.
        environment: That of this process.
    """
    told = {
        # As pip does, it takes a version from any index. Which file that may be, the hash says.
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    for name, variable in MEANINGS.items():
        # Lists are divided by spaces or lines there and here, but for links, by commas.
        words = pip.get(name, "").split()
        if words:
            told[variable] = ("," if name == "find-links" else " ").join(words)
    return {**told, **environment}


def install(locks: Sequence[str]) -> int:
    """Installs what the locks name, and returns pip's or uv's exit code."""
    wanted = [word for lock in locks for word in ("-r", lock)]
    if subprocess.run([*PIP, *QUIET, "-r", str(UV_LOCK)]).returncode == 0:
        listed = subprocess.run([*PIP, "config", "list"], stdout=subprocess.PIPE, text=True)
        environment = uv_environment(settings(listed.stdout), os.environ)
        uv = (sys.executable, "-m", "uv", "pip")
        # As pip does: with PYTHONDONTWRITEBYTECODE, which containers and nodes set, every process
        # would compile TensorFlow and Ray anew, for ever. Without it this takes six seconds less,
        # and the first run nine more (two cores).
        # On a terminal it draws how far it is; elsewhere its silence would be long.
        how = [word for word in QUIET if word != "--quiet" or not sys.stderr.isatty()]
        said = f"installing what {' and '.join(locks)} name; at first 3 GB, a minute or more"
        print(said, file=sys.stderr, flush=True)
        command = [*uv, *how, "--python", sys.executable, "--compile-bytecode", *wanted]
        if subprocess.run(command, env=environment).returncode == 0:
            return 0
    print("uv could not install the packages here; pip goes on, more slowly", file=sys.stderr)
    return subprocess.run([*PIP, *QUIET, *wanted]).returncode


if __name__ == "__main__":
    sys.exit(install(sys.argv[1:]))
