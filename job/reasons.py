"""Errors of the machine, the network and libraries in words: what happened, and what to do.

No library is imported for it: whoever raised an error has loaded its module.
"""

from __future__ import annotations

import errno
import socket
import sys

from job.errors import JobError
from job.text import one_line

SPACE = "free some space there, or name another place"
RIGHTS = "give this account the right to it, or name another place"
MOUNT = "see whether its disk or share is still there, or name another place"
PATH = "see whether the path is right"
NETWORK = "see whether the network is up, and call the command again"
MEMORY = "take a smaller --batch-size or fewer --workers, or end other programs"
DOCTOR = "`lenet doctor` looks for what is wrong here"
CERTIFICATE = "AWS_CA_BUNDLE or SSL_CERT_FILE names the certificates to trust"
STORE = "`lenet doctor --storage PLACE` looks for what is wrong with it"
AGAIN = "call the command again: what was begun goes on; `ray status` tells how the cluster stands"
BY_NUMBER = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), SPACE),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), RIGHTS),
    **dict.fromkeys((errno.ESTALE, errno.EIO, errno.ENOTCONN, errno.ENXIO, errno.ENODEV), MOUNT),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST), PATH),
    **dict.fromkeys((errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL), PATH),
    **dict.fromkeys((errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNREFUSED), NETWORK),
    **dict.fromkeys((errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH), NETWORK),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "`ulimit -n 65536` lets it open more files"),
    **dict.fromkeys((errno.ENOMEM, errno.EAGAIN), MEMORY),
}
# The first that an error is one of counts. Some of Ray's are OSErrors, too.
LIBRARIES = (
    ("ray.exceptions", "OutOfMemoryError", "Ray", MEMORY),
    ("ray.exceptions", "ObjectStoreFullError", "Ray", MEMORY),
    ("ray.exceptions", "OutOfDiskError", "Ray", "free some space in its folder, /tmp/ray say"),
    ("ray.exceptions", "RayError", "Ray", AGAIN),
    ("ray.train", "TrainingFailedError", "Ray", AGAIN),
    ("ray.tune.error", "TuneError", "Ray", AGAIN),
    ("grpc", "RpcError", "Ray", AGAIN),
    ("tensorflow", "errors.ResourceExhaustedError", "TensorFlow", MEMORY),
    ("tensorflow", "errors.OpError", "TensorFlow", f"{DOCTOR}; --verbose shows where it failed"),
    ("botocore.exceptions", "SSLError", "object storage", CERTIFICATE),
    ("botocore.exceptions", "ClientError", "object storage", STORE),
    ("botocore.exceptions", "BotoCoreError", "object storage", STORE),
    ("urllib3.exceptions", "HTTPError", "network", NETWORK),
    ("http.client", "HTTPException", "network", NETWORK),
    ("ssl", "SSLError", "network", CERTIFICATE),
)


def reason_of(error: BaseException) -> str | None:
    """What an error came from and what to do, in one line.

    None where it is no error of the machine, the network or a library, but a defect of this
    program: that keeps its traceback.
    """
    if _is(error, "ray.exceptions", "RayTaskError"):
        # Of the function that ran elsewhere. It is of the class of what was raised there, too.
        cause = getattr(error, "cause", None)
        return None if cause is None else reason_of(cause)
    if isinstance(error, JobError):
        return str(error)
    for module, name, library, remedy in LIBRARIES:
        if _is(error, module, name):
            return f"{library}: {one_line(error)}; {remedy}"
    if isinstance(error, MemoryError):
        return f"there is not enough memory; {MEMORY}"
    return _of_the_system(error) if isinstance(error, OSError) else None


def text_of(error: OSError) -> str:
    """What an error of the system says; libraries raise some with a text alone, or with nothing."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def _is(error: BaseException, module: str, name: str) -> bool:
    known = sys.modules.get(module)
    for part in name.split("."):
        known = getattr(known, part, None)
    return isinstance(known, type) and isinstance(error, known)


def _of_the_system(error: OSError) -> str:
    """Also of what Python and libraries raise as such an error, with a text alone."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, OSError):
        return _of_the_system(inner)
    place = f"{error.filename}: " if error.filename else ""
    is_network = isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
    remedy = BY_NUMBER.get(error.errno or 0, NETWORK if is_network else DOCTOR)
    return f"{place}{text_of(error)}; {remedy}"
