"""Kills or hangs a worker at a chosen moment, when a test asks: in the middle of writing a
checkpoint, or when training is about to begin.

Python imports this module at start where its folder is on PYTHONPATH, which only these tests do.
The file that CHAOS_TRIGGER names holds the deed, `kill`, `hang` or `begin`, and the number of the
disk operation to do it before; it goes away when it is done.
"""

import os
import signal
import threading
import time

trigger = os.environ.get("CHAOS_TRIGGER")


def deadly(function, path_of):
    def call(*arguments, **named):
        if "/checkpoints" in path_of(arguments[0]) and os.path.exists(trigger):
            with open(trigger) as stream:
                deed, left = stream.read().split()
            if deed == "begin":
                return function(*arguments, **named)
            if left == "0":
                os.unlink(trigger)
                if deed == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(3600)
            with open(trigger, "w") as stream:
                stream.write(f"{deed} {int(left) - 1}")
        return function(*arguments, **named)

    return call


def begin(thread):
    """Ray Train has started its group, and now the thread in which a worker trains."""
    if thread.name.startswith("TrainingThread") and takes_the_trigger():
        os.kill(os.getpid(), signal.SIGKILL)
    start(thread)


def takes_the_trigger():
    """Whether a worker shall die as it begins, and this one comes first: all begin at once."""
    try:
        with open(trigger) as stream:
            wanted = stream.read().split()[0]
        if wanted == "begin":
            os.unlink(trigger)
    except FileNotFoundError:
        return False
    return wanted == "begin"


start = threading.Thread.start
if trigger:
    threading.Thread.start = begin
    os.fsync = deadly(os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    os.replace = deadly(os.replace, os.fspath)
