"""The moving picture of the README: a run that is killed, goes on, and ends with the same weights.

    python -m docs.make.terminal    # plays it anew, keeps docs/results/terminal.json

What it shows was printed by the commands that it shows, with the times at which it was. `make docs`
draws it: an SVG that moves by itself, without a script.
"""

from __future__ import annotations

import html
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "docs" / "results" / "terminal.json"
TRAIN = "lenet train --name {name} --epochs 3 --limit-train 24000"
SHA = "grep '\"weights_sha256' runs/*/result.json"
# Killed when so many epochs are done, in the midst of the next.
EPOCHS_BEFORE = 1
# How long what is there is shown before the next command, and all of it at the end.
PAUSE, END = 1.2, 6.0
# All of it before the first, since some show only how it begins.
START = 2.0
FASTER = 3.0
FONT, LINE, WIDTH, MARGIN = 13, 19, 920, 14
COLOURS = {"command": "#7ee787", "killed": "#ff7b72", "said": "#c9d1d9"}

Line = dict[str, Any]


def play(folder: Path) -> list[Line]:
    """Runs the commands in a folder; gives each line with its kind and its second."""
    lines: list[Line] = []
    clock = 0.0

    def show(kind: str, text: str, at: float) -> None:
        lines.append({"kind": kind, "text": text, "at": round(at, 2)})

    def run(name: str, kill: bool = False) -> None:
        nonlocal clock
        command = TRAIN.format(name=name)
        show("command", f"$ {command}", clock)
        arguments = [sys.executable, "-m", "tuning.cli", *command.split()[1:]]
        began = time.monotonic()
        environment = {**os.environ, "COLUMNS": "100"}
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        done = 0
        for line in process.stderr:
            if "━" in line:
                continue
            show("said", line.rstrip(), clock + time.monotonic() - began)
            done += "val_loss" in line
            if kill and done == EPOCHS_BEFORE:
                time.sleep(1.0)
                os.kill(process.pid, signal.SIGKILL)
                show("killed", f"$ kill -9 {process.pid}", clock + time.monotonic() - began)
                break
        if (process.wait() == 0) == kill:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        clock += time.monotonic() - began + PAUSE * FASTER

    run("whole")
    run("killed", kill=True)
    run("killed")
    show("command", f"$ {SHA}", clock)
    found = subprocess.run(SHA, shell=True, cwd=folder, capture_output=True, text=True, check=True)
    said = [line for line in found.stdout.splitlines() if "best_weights" not in line]
    for line in said:
        show("said", " ".join(line.split()), clock + 0.3)
    if len({line.partition(":")[2] for line in said}) != 1:
        raise RuntimeError("the weights differ")
    return lines


def picture(path: Path = RESULT) -> bytes:
    """The kept lines as an SVG, each of which appears at its time, again and again."""
    lines = json.loads(path.read_text())["lines"]
    total = START + lines[-1]["at"] / FASTER + END
    begun = 100 * START / total
    height = 2 * MARGIN + LINE * len(lines)
    drawn = []
    for number, line in enumerate(lines):
        share = 100 * (START + line["at"] / FASTER) / total + 0.02
        whole = f"0%,{begun:.2f}%{{opacity:1}}{begun + 0.01:.2f}%,{share:.2f}%{{opacity:0}}"
        shown = f"{share + 0.01:.2f}%{{opacity:1}}"
        y, colour = MARGIN + LINE * (number + 0.75), COLOURS[line["kind"]]
        drawn += [
            f"<style>@keyframes l{number}{{{whole}{shown}}}</style>",
            f'<text x="{MARGIN}" y="{y:.1f}" fill="{colour}" xml:space="preserve" '
            f'style="animation:l{number} {total:.1f}s infinite">{html.escape(line["text"])}</text>',
        ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'font-family="ui-monospace,Menlo,Consolas,monospace" font-size="{FONT}">',
            "<title>A run is trained whole; another is killed, goes on with the same command, and "
            "ends with the same SHA-256 of its weights.</title>",
            f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#0d1117"/>',
            *drawn,
            "</svg>\n",
        ]
    ).encode()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = play(Path(folder))
    RESULT.write_text(json.dumps({"lines": lines}, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(line["text"] for line in lines))


if __name__ == "__main__":
    main()
