"""Sweeps made by hand, for tests of what is read from them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from job.config.resolve import resolve
from job.data.catalogue import CATALOGUE
from job.runs.run import CHECKPOINTS, CONFIG_FILE, RESULT_FILE
from job.runs.state import EpochRow, RunState, best_row, sha256_of
from job.storage.base import Storage
from job.storage.checkpoints import CheckpointStore
from job.storage.documents import to_json
from tuning.records import (
    FAILED,
    FINISHED,
    REPEAT,
    STOPPED,
    SWEEP_FILE,
    UNFINISHED,
    Outcome,
    Plan,
    Sweep,
    Trial,
    Winner,
    document_of,
    write_outcome,
    write_plan,
    write_winner,
)

BEGAN = 1_795_420_800.0
EPOCHS = 9
SPACE = {
    "batch_size": {"values": [32, 64, 128, 256]},
    "optimizer": {"values": ["momentum", "adam"]},
    "learning_rate": [
        {
            "when": {"optimizer": ["momentum"]},
            "low": 0.01,
            "high": 0.3,
            "log": True,
            "with_batch": "linear",
        },
        {
            "when": {"optimizer": ["adam"]},
            "low": 0.0003,
            "high": 0.01,
            "log": True,
            "with_batch": "sqrt",
        },
    ],
}
# Optimizer, batch size, where in its range the rate is, epochs, state.
TRIALS: list[tuple[str, int, float, int, str]] = [
    ("momentum", 128, 0.55, 9, FINISHED),
    ("adam", 32, 0.90, 1, STOPPED),
    ("momentum", 64, 0.62, 9, FINISHED),
    ("adam", 128, 0.35, 9, FINISHED),
    ("momentum", 256, 0.05, 1, STOPPED),
    ("adam", 64, 0.50, 3, STOPPED),
    ("momentum", 32, 0.95, 2, FAILED),
    ("adam", 256, 0.15, 3, STOPPED),
    ("momentum", 128, 0.70, 9, FINISHED),
    ("adam", 32, 0.10, 1, STOPPED),
    ("momentum", 64, 0.20, 3, STOPPED),
    ("adam", 128, 0.45, 9, FINISHED),
    ("momentum", 256, 0.98, 0, FAILED),
    ("adam", 64, 0.02, 1, STOPPED),
    ("momentum", 32, 0.40, 3, STOPPED),
    ("adam", 256, 0.60, 0, UNFINISHED),
]
ERRORS = {
    6: "TrainingDivergedError: the loss became NaN in epoch 3",
    12: "the process was lost 4 times",
}
# What must stay text.
HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"'><svg onload=alert(3)>",
    "{{ 7 * 7 }}{% raw %}",
    "--> <!-- \u2028 \u2029 \u202e ünïcode 数 \ud800",
    "[link](javascript:alert(4)) &lt;b&gt;",
)


def realistic_sweep(*, ended: bool = True, **changed: Any) -> Sweep:
    """Sixteen trials under ASHA, and two repeats of the winner: finished, stopped, failed, and
    one without a record.

    Args:
        ended: There are repeats and a winner.
        changed: Fields that are to be otherwise.
    """
    trials = [_trial(number, *drawn) for number, drawn in enumerate(TRIALS)]
    winner = None
    if ended:
        trials += [_repeat(trials[2], 16, 2), _repeat(trials[2], 17, 3)]
        members = (2, 16, 17)
        winner = Winner(
            trial=2,
            members=members,
            val_accuracy=tuple(trials[i].outcome.best.val_accuracy for i in members),
            test_accuracy=(0.9921, 0.9916, 0.9925),
            command="lenet train --model lenet5 --batch-size 64 --learning-rate 0.0411 --seed 1",
        )
    sweep = Sweep(
        name="lenet5-mnist-asha",
        created=BEGAN,
        config={
            "trials": 16,
            "search": "random",
            "scheduler": "asha",
            "max_epochs": EPOCHS,
            "space": None,
            "finalists": 3,
            "repeats": 2,
            "workers_per_trial": 1,
            "cpus_per_trial": 1.0,
            "gpus_per_trial": 0.0,
            "time_budget": None,
        },
        base={"model": "lenet5", "dataset": "mnist", "label_smoothing": 0.05},
        space=SPACE,
        dataset=CATALOGUE["mnist"].to_dict(),
        hardware="1 node: AMD EPYC, 2 CPUs, 24 GiB",
        versions={"python": "3.11.7", "tensorflow": "2.21.0", "keras": "3.15.1", "ray": "2.60.0"},
        trials=tuple(trials),
        winner=winner,
    )
    return dataclasses.replace(sweep, **changed)


def history(quality: float, epochs: int, seconds: float = 12.5) -> tuple[EpochRow, ...]:
    """A plausible history; a quality of 1 ends near 99 %, one of 0 learns little."""
    rows = []
    for epoch in range(1, epochs + 1):
        error = (0.011 + 0.09 * (1 - quality) ** 2) + (
            0.045 + 0.5 * (1 - quality) ** 3
        ) / epoch**1.4
        wobble = 0.0011 * math.sin(7.3 * epoch + 31 * quality)
        rows.append(
            EpochRow(
                epoch=epoch,
                loss=3.1 * error,
                accuracy=1 - 0.8 * error,
                val_loss=3.4 * error + wobble,
                val_accuracy=1 - error - wobble,
                seconds=seconds + 0.3 * math.sin(epoch),
                images_per_second=48_000 / seconds,
                val_seconds=0.9,
            )
        )
    return tuple(rows)


def _trial(number: int, optimizer: str, batch: int, place: float, epochs: int, state: str) -> Trial:
    low, high, power = (0.01, 0.3, 1.0) if optimizer == "momentum" else (3e-4, 1e-2, 0.5)
    drawn = math.exp(math.log(low) + place * (math.log(high) - math.log(low)))
    rate = float(f"{drawn * (batch / 128) ** power:.6g}")
    plan = Plan(
        number=number,
        settings={"batch_size": batch, "optimizer": optimizer, "learning_rate": rate},
        seed=1,
        drawn={
            "batch_size": batch,
            "optimizer": optimizer,
            f"learning_rate [optimizer={optimizer}]": drawn,
        },
    )
    quality = 1 - (1.6 * abs(place - 0.58) + 0.1 * abs(math.log2(batch / 96))) ** 1.1
    quality -= 0.12 if optimizer == "adam" else 0
    if state == UNFINISHED:
        return Trial(plan=plan)
    seconds = 9.0 + 400 / batch
    rows = history(max(quality, 0.02), epochs, seconds)
    outcome = Outcome(
        state=state,
        error=ERRORS.get(number, ""),
        history=rows,
        started=BEGAN + 60.0 * number,
        seconds=14.0 + epochs * (seconds + 1.9),
        restarts=4 if number == 12 else 0,
        device="cpu (AMD EPYC, 2 threads)",
    )
    return Trial(plan=plan, outcome=outcome)


def _repeat(trial: Trial, number: int, seed: int) -> Trial:
    plan = dataclasses.replace(
        trial.plan, number=number, kind=REPEAT, seed=seed, repeats=trial.plan.number
    )
    rows = tuple(
        dataclasses.replace(row, val_accuracy=row.val_accuracy - 0.0004 * seed, epoch=row.epoch)
        for row in trial.outcome.history
    )
    outcome = dataclasses.replace(
        trial.outcome, history=rows, started=BEGAN + 60.0 * number, seconds=177.0 + seed
    )
    return Trial(plan=plan, outcome=outcome)


def hostile_sweep() -> Sweep:
    """The realistic sweep with every text that comes from outside hostile."""
    script, image, vector, template, odd, link = HOSTILE

    def spoilt(trial: Trial) -> Trial:
        settings = {
            **trial.plan.settings,
            script: image,
            "optimizer": HOSTILE[trial.plan.number % 6],
        }
        plan = dataclasses.replace(trial.plan, settings=settings, drawn={})
        outcome = dataclasses.replace(trial.outcome, error=image, device=vector)
        return Trial(plan=plan, outcome=outcome)

    sweep = realistic_sweep()
    return dataclasses.replace(
        sweep,
        name=script,
        dataset={"name": image, "files": {vector: template}},
        hardware=odd,
        versions={link: script},
        base={vector: [image, {"a": template}]},
        space={odd: script},
        config={**sweep.config, "search": image},
        trials=tuple(map(spoilt, sweep.trials)),
        winner=dataclasses.replace(sweep.winner, command=f"lenet train {vector}"),
    )


def keep(folder: Storage, sweep: Sweep) -> None:
    """Writes a sweep as its driver would have."""
    folder.write(SWEEP_FILE, to_json(document_of(sweep)))
    for trial in sweep.trials:
        write_plan(folder, trial.plan)
        if trial.outcome.state != UNFINISHED:
            write_outcome(folder, trial.plan, trial.outcome)
    if sweep.winner is not None:
        write_winner(folder, sweep.winner)


def keep_run(
    root: Storage, name: str, *, quality: float = 0.9, epochs: int = 4, ended: bool = True, **given
) -> None:
    """Writes a run with a history but without a net behind it."""
    config = resolve({**given, "name": name, "epochs": 4})
    folder = root.at(name)
    folder.write(CONFIG_FILE, to_json({"created": BEGAN, "config": config.to_dict()}))
    rows = history(quality, epochs)
    if not rows:
        return
    weights = {"kernel": np.ones(3, np.float32)}
    best = best_row(rows, "loss")
    state = RunState(
        step=epochs * 10,
        history=rows,
        best_epoch=best.epoch,
        weights=weights,
        optimizer={},
        best_weights=weights,
    )
    checkpoints = CheckpointStore(folder.at(CHECKPOINTS), config.digest)
    checkpoints.claim()
    checkpoints.save(state.step, state.to_files(), val_loss=best.val_loss)
    if ended:
        result = {
            "test_accuracy": best.val_accuracy + 0.001,
            "device": "cpu (AMD EPYC, 2 threads)",
            "parameters": 61706,
            "versions": {"python": "3.11.7"},
            "best_weights_sha256": sha256_of(weights.values()),
        }
        folder.write(RESULT_FILE, to_json(result))
