"""Packages that only a benchmark's other side needs.

They are in folders beside the data, never in the environment of the project.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from job.data.sources import cache_folder


def peer_packages(pinned: Path) -> Path:
    """The folder of the packages that a file with hashes names; they are installed at first use.

    Raises:
        subprocess.CalledProcessError: pip can't get them.
    """
    folder = cache_folder(f"peers-{hashlib.sha256(pinned.read_bytes()).hexdigest()[:12]}")
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".partial-") as scratch:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            wanted = ["--only-binary", ":all:", "--require-hashes", "--requirement", str(pinned)]
            target = os.path.join(scratch, "packages")
            subprocess.run([*pip, *wanted, "--target", target], check=True)
            os.replace(target, folder)
    return folder
