"""Kills a worker in the middle of writing a checkpoint, when the chaos campaign asks for it.

Python imports this module at start where its folder is on PYTHONPATH, which only the campaign does.
The file that CHAOS_TRIGGER names holds the number of the disk operation to die before.
"""

import os
import signal

trigger = os.environ.get("CHAOS_TRIGGER")


def deadly(function, path_of):
    def call(*arguments, **named):
        if "/checkpoints" in path_of(arguments[0]) and os.path.exists(trigger):
            with open(trigger) as stream:
                left = int(stream.read())
            if left == 0:
                os.unlink(trigger)
                os.kill(os.getpid(), signal.SIGKILL)
            with open(trigger, "w") as stream:
                stream.write(str(left - 1))
        return function(*arguments, **named)

    return call


if trigger:
    os.fsync = deadly(os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    os.replace = deadly(os.replace, os.fspath)
