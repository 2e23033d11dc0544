"""Arrays from the pickles of CIFAR's Python version, without unpickling.

A pickle is a program for a machine that can call anything. `pickletools.genops` of the standard
library only takes it apart; what follows is a machine for those instructions that Python 2 wrote a
dictionary of lists and NumPy arrays with. Calls are noted and never made, and three names are all
that may be noted. NumPy gets the plain bytes.

(`pickle.Unpickler` with a `find_class` of one's own, as Keras does it, still runs what it admits.)
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

RECONSTRUCT = "numpy.core.multiarray _reconstruct"
NAMES = (RECONSTRUCT, "numpy ndarray", "numpy dtype")
MARK = object()
# A batch has three for each of its 10,000 examples.
MOST_INSTRUCTIONS = 200_000


class Name(str):
    """A name of something callable: only ever compared."""


class Noted:
    """A call that was not made, and the state that the result would have been given."""

    def __init__(self, name: Name, arguments: tuple) -> None:
        self.call, self.state = (name, arguments), None


def parse_batch(content: bytes, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads a batch of CIFAR's Python version.

    Args:
        content: The pickle.
        rows: Examples that it must hold.
        width: Values of an example.

    Returns:
        uint8 (rows, width) from `data`, and uint8 (rows,) from `labels`.

    Raises:
        ValueError: It is anything else. Nothing of it was run.
    """
    batch = parse(content)
    if not isinstance(batch, dict) or not batch.keys() >= {"data", "labels"}:
        raise ValueError("holds no data and labels")
    labels = batch["labels"]
    if (
        not isinstance(labels, list)
        or len(labels) != rows
        or not all(type(label) is int and 0 <= label < 256 for label in labels)
    ):
        raise ValueError(f"labels is not a list of {rows:,} numbers of a byte")
    return _array(batch["data"], rows, width), np.array(labels, np.uint8)


def parse(content: bytes) -> Any:
    """What a pickle describes: None, whole numbers, `str` for the bytes of Python 2 (one character
    a byte), lists, tuples, dictionaries, and `Noted` for what would have been built.

    Raises:
        ValueError: It is not whole, or has an instruction or a name that no batch of CIFAR has.
    """
    machine = _Machine()
    # It raises ValueError for whatever is not a pickle.
    for count, (instruction, argument, _) in enumerate(pickletools.genops(content)):
        if count > MOST_INSTRUCTIONS:
            raise ValueError(f"has more than {MOST_INSTRUCTIONS:,} instructions")
        run = INSTRUCTIONS.get(instruction.name)
        if run is None:
            raise ValueError(f"has the instruction {instruction.name}, which is never followed")
        try:
            run(machine, argument)
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(f"does not add up at {instruction.name} ({error!r})") from None
    if len(machine.stack) != 1:
        raise ValueError("leaves other than one thing")
    return machine.stack[0]


def _array(noted: Any, rows: int, width: int) -> np.ndarray:
    """The array whose pickle this is, if it is one of bytes and of that shape."""
    values = noted.state if isinstance(noted, Noted) and noted.call[0] == RECONSTRUCT else None
    if not isinstance(values, tuple) or len(values) != 5:
        raise ValueError("data is no array")
    _, shape, kind, is_fortran, pixels = values
    if not isinstance(kind, Noted) or kind.call[0] != "numpy dtype" or kind.call[1][:1] != ("u1",):
        raise ValueError("data is not made of bytes")
    if shape != (rows, width) or not isinstance(pixels, str) or len(pixels) != rows * width:
        raise ValueError(f"data is not of shape ({rows}, {width})")
    # One character a byte, which is what Latin 1 is.
    flat = np.frombuffer(pixels.encode("latin-1"), np.uint8)
    return flat.reshape((rows, width), order="F" if is_fortran else "C")


class _Machine:
    """The stack and the memo of a pickle (the comments of `pickletools` define them)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def take(self, count: int) -> tuple:
        if count > len(self.stack):
            raise IndexError("the stack is too short")
        start = len(self.stack) - count
        taken, self.stack[start:] = tuple(self.stack[start:]), []
        return taken

    def take_marked(self) -> tuple:
        taken = []
        while (value := self.stack.pop()) is not MARK:
            taken.append(value)
        return tuple(reversed(taken))

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def name(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"names {name.replace(' ', '.')!r:.60}, which is never called")
        self.push(Name(name))

    def note_call(self) -> None:
        name, arguments = self.take(2)
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise TypeError("not a call")
        self.push(Noted(name, arguments))

    def note_state(self) -> None:
        (state,) = self.take(1)
        if not isinstance(self.stack[-1], Noted):
            raise TypeError("state of what is not built")
        self.stack[-1].state = state

    def append(self, values: tuple) -> None:
        if not isinstance(self.stack[-1], list):
            raise TypeError("not a list")
        self.stack[-1].extend(values)

    def set_items(self, values: tuple) -> None:
        keys = values[::2]
        if not isinstance(self.stack[-1], dict) or not all(type(key) is str for key in keys):
            raise TypeError("not a dictionary of names")
        self.stack[-1].update(zip(keys, values[1::2], strict=True))


def _nothing(machine: _Machine, _: Any) -> None:
    pass


INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "STOP"), _nothing),
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG1", "BINSTRING", "SHORT_BINSTRING"),
        _Machine.push,
    ),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "MARK": lambda machine, _: machine.push(MARK),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "TUPLE": lambda machine, _: machine.push(machine.take_marked()),
    "APPEND": lambda machine, _: machine.append(machine.take(1)),
    "APPENDS": lambda machine, _: machine.append(machine.take_marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.take(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.take_marked()),
    "GLOBAL": lambda machine, name: machine.name(name),
    "REDUCE": lambda machine, _: machine.note_call(),
    "BUILD": lambda machine, _: machine.note_state(),
}
