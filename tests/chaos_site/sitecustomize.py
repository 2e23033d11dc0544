"""Kills or hangs a worker in the middle of writing a checkpoint, when the chaos campaign asks.

Python imports this module at start where its folder is on PYTHONPATH, which only the campaign does.
The file that CHAOS_TRIGGER names holds the deed and the number of the disk operation to do it
before; it goes away when it is done.
"""

import os
import signal
import time

trigger = os.environ.get("CHAOS_TRIGGER")


def deadly(function, path_of):
    def call(*arguments, **named):
        if "/checkpoints" in path_of(arguments[0]) and os.path.exists(trigger):
            with open(trigger) as stream:
                deed, left = stream.read().split()
            if left == "0":
                os.unlink(trigger)
                if deed == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(3600)
            with open(trigger, "w") as stream:
                stream.write(f"{deed} {int(left) - 1}")
        return function(*arguments, **named)

    return call


if trigger:
    os.fsync = deadly(os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    os.replace = deadly(os.replace, os.fspath)
