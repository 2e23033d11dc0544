"""How many processors there are to compute on, and what becomes of what libraries say."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.engine.runtime import processors

HERE = len(os.sched_getaffinity(0))
GROUPS = {
    "no groups": ({}, HERE),
    "no quota (2)": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 1\n"}, HERE),
    "half of one (2)": ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50 100\n"}, 1),
    "more than there are (2)": (
        {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "900000 100\n"},
        HERE,
    ),
    "one and a bit, of the group above (2)": (
        {
            "proc/self/cgroup": "0::/kube/pod\n",
            "sys/fs/cgroup/kube/cpu.max": "110 100\n",
            "sys/fs/cgroup/kube/pod/cpu.max": "800 100\n",
        },
        2,
    ),
    "no quota (1)": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/a\n1:memory:/b\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
        },
        HERE,
    ),
    "one, by its path outside of the container (1)": (
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/docker/123\n0::/\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
        1,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_a_quota_counts_rounded_up_and_the_least_of_all_above(case, tmp_path):
    files, wanted = GROUPS[case]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert processors(tmp_path) == min(wanted, HERE)


@pytest.fixture
def half() -> Iterator[Path]:
    """A control group of this machine with half a processor."""
    one, two = Path("/sys/fs/cgroup/cpu/lenet-test"), Path("/sys/fs/cgroup/lenet-test")
    group = one if one.parent.is_dir() else two
    try:
        group.mkdir()
        if group == one:
            (group / "cpu.cfs_quota_us").write_text("50000")
        else:
            (group / "cpu.max").write_text("50000 100000")
    except OSError as error:
        pytest.skip(f"no control group can be made here ({error.strerror})")
    yield group
    group.rmdir()


def test_in_a_real_group(half):
    done = subprocess.run(
        [
            *("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', half, sys.executable, "-c"),
            "from job.engine.runtime import processors; print(processors())",
        ],
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


ENDS = {
    "aborts": ("os.abort()", -signal.SIGABRT, "why\n"),
    "is killed": ("os.kill(os.getpid(), 9)", -signal.SIGKILL, "why\n"),
    "is ended by a library": ("os._exit(3)", 3, "why\n"),
    "fails": ("sys.exit(4)", 4, "why\n"),
    "succeeds": ("pass", 0, ""),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_was_held_back_is_shown_where_the_process(case):
    end, code, shown = ENDS[case]
    script = f"""
import os, sys
from job.engine.runtime import stderr_held_back
with stderr_held_back():
    os.write(2, b"why\\n")
    {end}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", shown)
