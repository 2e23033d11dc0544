"""Asks TensorFlow's own loader for every library of NVIDIA's that it opens: a line for each.

PYTHONPATH=. PYTHON tests/kit/gpu_libraries.py     # of an environment with requirements-gpu.lock
"""

from __future__ import annotations

import ctypes
import mmap
import re
import sys
from pathlib import Path

from job.engine.runtime import import_tensorflow

# Of C++: `absl::Status` tsl::internal::DsoLoader::…, and `absl::StatusOr<void*>`, which begins with
# one. Both are returned through a pointer.
LOADER = rb"_ZN3tsl8internal9DsoLoader\d+"
GETTERS = LOADER + rb"Get((?:Cu|Nc|Nv)\w+?)DsoHandleEv"
ALL = "_ZN3tsl8internal9DsoLoader26MaybeTryDlopenGPULibrariesEv"
STATUS_BYTES = 256
OK = (1).to_bytes(8, sys.byteorder)


def framework() -> Path:
    """The library whose loader it is."""
    import tensorflow as tf

    return Path(tf.__file__).with_name("libtensorflow_framework.so.2")


def found_in(path: Path, pattern: bytes) -> dict[str, tuple[str, ...]]:
    """What a pattern finds in a binary, with its groups."""
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        return {
            match[0].decode(): tuple(map(bytes.decode, match.groups()))
            for match in re.finditer(pattern, all_)
        }


def runpath(path: Path) -> set[str]:
    """The folders of NVIDIA's wheels in which a library looks for others."""
    return {name for (name,) in found_in(path, rb"\.\./nvidia/(\w+)/lib").values()}


def is_found(library: ctypes.CDLL, symbol: str) -> bool:
    """Whether a function of the loader opens what it is for."""
    function, status = getattr(library, symbol), ctypes.create_string_buffer(STATUS_BYTES)
    function.restype = None
    function(status)
    return status.raw.startswith(OK)


def main() -> None:
    import_tensorflow()
    library = ctypes.CDLL(str(framework()))
    for symbol, (name,) in sorted(found_in(framework(), GETTERS).items(), key=lambda it: it[1]):
        print(f"{name}: {'found' if is_found(library, symbol) else 'missing'}")
    print(f"all that a GPU needs: {'found' if is_found(library, ALL) else 'missing'}")


if __name__ == "__main__":
    main()
