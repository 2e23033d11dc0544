"""docs/troubleshooting.md has what people see: its list is the source's, its symptoms are real."""

from __future__ import annotations

import ast
import re

import pytest

from docs.make import messages
from tuning.cli import run_command

PAGE = (messages.ROOT / "docs" / "troubleshooting.md").read_text()


def is_listed(line: str) -> bool:
    """Whether a line is a message of the page, or ends with one that stands for a reason."""
    listed = (message for group in messages.GROUPS for message in messages.messages()[group])
    patterns = (".*".join(map(re.escape, m.split(messages.HOLE))) for m in listed)
    return any(re.search(f"(^|: ){pattern}$", line) for pattern in patterns)


@pytest.mark.parametrize(
    "command",
    [
        "train --batch-size 0",
        "train --storage s3:/bucket/x",
        "train --data nowhere --dataset mnist",
        "train --model nowhere.py:net",
        "train --name a --workers 2 --address 127.0.0.1:1",
        "evaluate nowhere",
        "compare alone",
        "sweep --space nowhere.toml",
        "report nowhere",
        "data stage",
    ],
)
def test_an_error_is_found_on_the_page(command, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert run_command(command.split()) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert is_listed(line.removeprefix("error: ")), line


def test_what_no_one_says_is_not_found():
    assert not is_listed("--data 'x': is too beautiful")


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        ("InputError('--x', n, f'has {n} rows; ' 'give more')", "--x '…': has … rows; give more"),
        ("InputError(flag('batch_size'), None, WHY)", "--batch-size: why it is so"),
        ("JobError(f'{error}; {HERE} is gone')", "…; … is gone"),
        # What another error says stands in a line of its own.
        ("InputError('--x', n, str(error))", ""),
    ],
)
def test_a_message_is_read_from_its_source(raised, said):
    call = ast.parse(raised, mode="eval").body
    assert messages.message(call, {"WHY": "why it is so"}) == said


def test_messages_of_a_new_room_need_a_group():
    assert messages.group_of("job/data/readers/new") == "data"
    with pytest.raises(KeyError):
        messages.group_of("job/new/thing")


def test_symptoms_are_in_our_words():
    """What is quoted in the first column below "you see" is said somewhere in the source."""
    said = "\n".join(
        node.value
        for tree in messages.trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    tables = re.findall(r"^\| you see \|.*\n\|-.*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    cells = [row.split("|")[1] for table in tables for row in table.splitlines()]
    quoted = [quote for cell in cells for quote in re.findall("`([^`]+)`", cell)]
    assert len(quoted) > 20
    for quote in quoted:
        for part in filter(None, map(str.strip, quote.split(messages.HOLE))):
            assert part in said, quote
