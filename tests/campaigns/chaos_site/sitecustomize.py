"""Kills or hangs a worker at a chosen moment, when a test asks: in the middle of writing a
checkpoint, when it is about to report an epoch to Ray Train, or to begin training.

Python imports this module at start where its folder is on PYTHONPATH, which only these tests do.
The file that CHAOS_TRIGGER names holds the deed, `kill` or `hang`, the place, `checkpoint` (each of
its disk operations), `report` or `begin`, and the number of chances to let pass; it goes away when
it is done.
"""

import os
import signal
import sys
import threading
import time

trigger = os.environ.get("CHAOS_TRIGGER")


def chance(place):
    """Does the deed if it is meant for here and now, and if no other worker comes first."""
    try:
        with open(trigger) as stream:
            deed, where, left = stream.read().split()
        if where != place:
            return
        if left != "0":
            with open(trigger, "w") as stream:
                stream.write(f"{deed} {where} {int(left) - 1}")
            return
        os.unlink(trigger)
    except FileNotFoundError:
        return
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def deadly(function, path_of):
    def call(*arguments, **named):
        if "/checkpoints" in path_of(arguments[0]):
            chance("checkpoint")
        return function(*arguments, **named)

    return call


def begin(thread):
    """Ray Train has started its group, and now the thread in which a worker trains."""
    if thread.name.startswith("TrainingThread"):
        chance("begin")
        train = sys.modules["ray.train"]
        train.report = reporting(train.report)
    start(thread)


def reporting(report):
    def call(*arguments, **named):
        chance("report")
        return report(*arguments, **named)

    return call


start = threading.Thread.start
if trigger:
    threading.Thread.start = begin
    os.fsync = deadly(os.fsync, lambda handle: os.readlink(f"/proc/self/fd/{handle}"))
    os.replace = deadly(os.replace, os.fspath)
