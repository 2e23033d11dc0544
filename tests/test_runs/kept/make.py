"""Makes the folders beside this file: what a version of this project leaves of a run that was
interrupted in the middle of an epoch, of a finished one and of a half-done sweep, and what the same
version makes of them when it goes on (`expected.json`).

    python tests/test_runs/kept/make.py FOLDER

They were made once, by the version that README.md names, and stay as they are:
tests/test_runs/test_kept.py shows that today's version goes on from them.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cluster.storage import LocalStorage, open_storage
from job.datasets import CATALOGUE, Split, test_split, training_splits
from job.download import obtain
from job.parquet import write_dataset
from PIL import Image

from job.runs import open_run
from tuning.records import FINISHED as FINISHED_TRIAL
from tuning.records import UNFINISHED, read_sweep

LENET = [sys.executable, "-m", "tuning.cli"]
DATA = ("--dataset", "own", "--data", "digits")
# Epochs of many steps, so that there is a middle to be interrupted in.
INTERRUPTED = ("train", "--name", "interrupted", "--epochs", 3, "--batch-size", 2)
INTERRUPTED += ("--learning-rate", 0.005, "--augment-shift", 1, "--checkpoint-every", 100, *DATA)
FINISHED = ("train", "--name", "finished", "--recipe", "notebook", "--epochs", 3)
FINISHED += ("--learning-rate", 0.1, *DATA)
SPACE = """
[optimizer]
values = ["rmsprop", "adam", "sgd"]

[[learning_rate]]
when = { optimizer = "sgd" }
values = [0.02]

[[learning_rate]]
when = { optimizer = ["rmsprop", "adam"] }
values = [0.001]
"""
SWEEP = ("sweep", "--name", "sweep", "--search", "grid", "--space", "space.toml")
SWEEP += ("--scheduler", "fifo", "--max-epochs", 2, "--batch-size", 2, "--cpus-per-trial", 2)
SWEEP += ("--finalists", 1, "--repeats", 1, "--address", "local", *DATA)
PICTURES = 5
# Stands for where the folders were, whose copy is elsewhere.
FOLDER = "{folder}"


def lenet(cwd: Path, *arguments: object) -> str:
    done = subprocess.run(
        [*LENET, *map(str, arguments)], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout


def interrupted(cwd: Path, number: int, when: Callable[[], bool], *arguments: object) -> None:
    """Runs a command and sends it a signal."""
    with subprocess.Popen([*LENET, *map(str, arguments)], cwd=cwd) as process:
        while not when():
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)


def digits(folder: Path) -> None:
    """A data set of one's own with the smallest images: MNIST's within their margin. LeNet5 has
    62,000 parameters with them."""
    mnist, content = CATALOGUE["mnist"], obtain("mnist")
    train, _ = training_splits(content, mnist)
    test = test_split(content, mnist)

    def first(split: Split, count: int) -> Split:
        return Split(split.images[:count, 4:24, 4:24], split.labels[:count])

    write_dataset(
        LocalStorage(folder / "digits"),
        "digits",
        mnist.labels,
        first(train, 1000),
        first(test, 200),
    )
    for i, image in enumerate(first(test, PICTURES).images):
        Image.fromarray(np.asarray(image[..., 0])).save(folder / f"{i}.png")


def make(folder: Path) -> None:
    (folder / "space.toml").write_text(SPACE.lstrip())
    digits(folder)
    runs = folder / "runs"

    def in_second_epoch() -> bool:
        reached = runs / "interrupted" / "reached.json"
        return reached.exists() and json.loads(reached.read_text())["step"] > 400

    def first_epoch_kept() -> bool:
        return (runs / "sweep" / "trials" / "0001" / "history.csv").exists()

    interrupted(folder, signal.SIGINT, in_second_epoch, *INTERRUPTED)
    assert open_run(f"{runs}/interrupted").restore().current.steps > 0
    lenet(folder, *FINISHED)
    # The first trial has ended, the second is in training, the third is only planned.
    interrupted(folder, signal.SIGKILL, first_epoch_kept, *SWEEP)
    trials = read_sweep(open_storage(str(runs)).at("sweep")).trials
    assert [t.outcome.state for t in trials] == [FINISHED_TRIAL, UNFINISHED, UNFINISHED], trials
    assert len(open_run(f"{runs}/sweep/trials/0001").restore().history) == 1
    assert not (runs / "sweep" / "trials" / "0002").exists()


def stripped(folder: Path) -> None:
    """Without what names this machine: locks, and the folder in places that are kept whole."""
    for lock in folder.rglob(".*"):
        lock.unlink()
    replaced(folder, str(folder), FOLDER)


def replaced(folder: Path, old: str, new: str) -> None:
    """In all documents below a folder."""
    for document in folder.rglob("*.json"):
        document.write_text(document.read_text().replace(old, new))


def expected(folder: Path) -> dict:
    """What becomes of them; `folder` is a copy that goes on."""
    runs = str(folder / "runs")
    found: dict = {"digests": {}, "evaluated": {}}
    for name in ("interrupted", "finished", "sweep/trials/0000", "sweep/trials/0001"):
        found["digests"][name] = open_run(f"{runs}/{name}").config.digest
    result = json.loads(lenet(folder, "train", "--name", "interrupted", *DATA, "--json"))
    found["weights_sha256"] = {result["device"]: result["weights_sha256"]}
    for name in ("interrupted", "finished"):
        state = open_run(f"{runs}/{name}").restore()
        told = json.loads(lenet(folder, "evaluate", name, "--json"))
        found["evaluated"][name] = {
            "test_loss": told["loss"],
            "test_accuracy": told["accuracy"],
            "val_loss": [row.val_loss for row in state.history],
        }
    pictures = [f"{i}.png" for i in range(PICTURES)]
    told = json.loads(lenet(folder, "predict", "finished", *pictures, "--json"))
    found["predicted"] = [one["probabilities"] for one in told]
    lenet(folder, "sweep", "--name", "sweep", "--address", "local", *DATA)
    sweep = read_sweep(open_storage(runs).at("sweep"))
    found["trials"] = [[row.val_loss for row in t.outcome.history] for t in sweep.trials]
    found["winner"] = {
        "trial": sweep.winner.trial,
        "test_accuracy": sweep.winner.test_accuracy,
        "command": sweep.winner.command.replace(str(folder), FOLDER),
    }
    return found


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made, copy = Path(scratch, "made"), Path(scratch, "copy")
        made.mkdir()
        make(made)
        stripped(made)
        shutil.copytree(made, copy)
        replaced(copy, FOLDER, str(copy))
        document = expected(copy)
        (made / "expected.json").write_text(json.dumps(document, indent=1) + "\n")
        for run in (made / "runs").iterdir():
            run.rename(made / run.name)
        (made / "runs").rmdir()
        shutil.copytree(made, target, dirs_exist_ok=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
