"""The kill campaign: a run on simulated nodes is disturbed again and again, and has to end with the
weights of an undisturbed one.

    python -m tests.campaigns.chaos --faults 100 --seed 1 --out docs/results/chaos.json

A seed picks the moments and the victims; all kinds of faults take turns, and the deadly moments of
a checkpoint too. The driver is the `lenet` command. Prints a table of detection and recovery times;
exit code 1 when a run did not finish, ended with other weights, lost more than a checkpoint
interval, or needed more than 10 s to notice.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.kit.nodes import Nodes, alive, training_workers

HERE = Path(__file__).parent
WORKERS = 2
CHECKPOINT_STEPS = 25
SETTINGS = [
    *("--limit-train", "12000", "--batch-size", "100"),
    *("--checkpoint-every", CHECKPOINT_STEPS, "--workers", WORKERS, "--cpus-per-worker", 1),
    *("--max-failures", 1000),
]
FAULTS = (
    *("kill worker", "stop worker", "kill raylet", "kill driver"),
    *("kill in checkpoint", "hang in checkpoint", "kill in report", "hang in report"),
)
# Every other fault is followed by this one, before training goes on.
AGAIN = "kill while starting"
# The disk operations of one checkpoint: two files, manifest and index, each with the sync of its
# content, the rename, and the sync of its folder.
CHECKPOINT_OPERATIONS = 12
DETECTION_LIMIT_SECONDS = 10.0


class Campaign:
    """Runs on a cluster of simulated nodes, and the faults done to them."""

    def __init__(self, nodes: Nodes, seed: int, epochs: int) -> None:
        self.nodes = nodes
        self.settings = [*SETTINGS, "--epochs", epochs]
        self.random = random.Random(seed)
        self.faults = itertools.cycle(FAULTS)
        self.operations = itertools.cycle(range(CHECKPOINT_OPERATIONS))
        self.trigger = Path(nodes.extra["CHAOS_TRIGGER"])
        self.records: list[dict[str, Any]] = []

    def run(self, name: str, faults: int) -> dict[str, Any]:
        """Trains one run under so many faults, fewer if it ends before; returns its result."""
        self.driver = self.nodes.start(name, *self.settings)
        until = len(self.records) + faults
        while len(self.records) < until and self.disturb(name):
            pass
        # One that was asked for but not met, because training was over, must not hit the next run.
        result = self.nodes.result(self.driver, name)
        self.trigger.unlink(missing_ok=True)
        return result

    def disturb(self, name: str) -> bool:
        """One fault, somewhere in the next steps. False when the run ended before it was over."""
        at_rest = self.nodes.notes(name)
        moment = at_rest["step"] + self.random.randrange(5, 60)
        if not self.nodes.wait(self.driver, lambda: self.nodes.notes(name)["step"] >= moment):
            return False
        victims = training_workers(psutil.Process().pid)
        before = self.nodes.notes(name)
        fault = next(self.faults)
        began = self.inject(fault, victims)
        if began is None or not self.nodes.wait(
            self.driver if fault != "kill driver" else Undying(),
            lambda: not any(alive(process) for process in victims),
        ):
            return False
        detected = time.monotonic() - began
        if fault == "kill driver":
            self.driver = self.nodes.start(name, *self.settings)
        if fault == "kill raylet":
            self.nodes.add()
        is_twice = len(self.records) % 3 == 0
        if is_twice:
            self.keep({"fault": fault, "detected": detected})
            fault = AGAIN
            began = self.kill_while_starting()
            detected = 0.0 if began is None else time.monotonic() - began
        if began is None:
            return False
        resumed = before["restarts"] + 1
        if not self.nodes.wait(self.driver, lambda: self.nodes.notes(name)["restarts"] >= resumed):
            return False
        first = self.nodes.notes(name)
        if not self.nodes.wait(self.driver, lambda: self.nodes.notes(name)["step"] > first["step"]):
            return False
        self.keep(
            {
                "fault": fault,
                "detected": detected,
                "recovered": time.monotonic() - began,
                "lost_steps": first["lost_steps"] - before["lost_steps"],
            }
        )
        return True

    def keep(self, record: dict[str, Any]) -> None:
        record = {k: round(v, 2) if isinstance(v, float) else v for k, v in record.items()}
        self.records.append(record)
        print(json.dumps(record), flush=True)

    def kill_while_starting(self) -> float | None:
        """Kills one of the workers that are about to take the run up again, at a random moment of
        their start. Returns when all of them were gone, None if the run ended."""

        def new_workers() -> list[psutil.Process]:
            return training_workers(psutil.Process().pid)

        if not self.nodes.wait(self.driver, lambda: len(new_workers()) == WORKERS):
            return None
        until = time.monotonic() + self.random.uniform(0, 8)
        self.nodes.wait(self.driver, lambda: time.monotonic() > until)
        victims = new_workers()
        if not victims:
            return None
        began = time.monotonic()
        self.random.choice(victims).kill()
        gone = self.nodes.wait(self.driver, lambda: not any(alive(process) for process in victims))
        return began if gone else None

    def inject(self, fault: str, victims: list[psutil.Process]) -> float | None:
        """Does it; returns when it happened, None if the run ended before it did."""
        victim = self.random.choice(victims)
        match fault:
            case "kill worker":
                victim.kill()
            case "stop worker":
                victim.suspend()
            case "kill raylet":
                self.nodes.lose(self.random.randrange(len(self.nodes.nodes)))
            case "kill driver":
                self.driver.kill()
                self.driver.wait()
            case "kill in checkpoint" | "hang in checkpoint" | "kill in report" | "hang in report":
                deed, _, place = fault.split()
                number = next(self.operations) if place == "checkpoint" else 0
                asked = self.trigger.with_suffix(".new")
                asked.write_text(f"{deed} {place} {number}")
                asked.rename(self.trigger)
                if not self.nodes.wait(self.driver, lambda: not self.trigger.exists()):
                    return None
        return time.monotonic()


class Undying:
    """Stands for a driver whose end is no end of the run."""

    def poll(self) -> None:
        return None


def table(records: list[dict[str, Any]]) -> str:
    """Detection (fault to the end of the attempt's last worker) and recovery (fault to the first
    new steps), by fault."""
    lines = [
        "| fault | n | noticed after, s: median (max) | training again, s: median (max) |",
        "|---|---|---|---|",
    ]
    for fault in (*FAULTS, AGAIN):
        group = [record for record in records if record["fault"] == fault]
        if group:
            cells = []
            for key in ("detected", "recovered"):
                known = [record[key] for record in group if key in record]
                cells.append(f"{statistics.median(known):.1f} ({max(known):.1f})" if known else "")
            lines.append(f"| {fault} | {len(group)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def complaints(outcome: dict[str, Any]) -> Iterator[str]:
    """What of a campaign is not as it has to be."""
    for number, run in enumerate(outcome["runs"]):
        if not run["equal"]:
            yield f"run {number} ended with other weights than the undisturbed one"
    for record in outcome["records"]:
        if record.get("lost_steps", 0) > CHECKPOINT_STEPS:
            yield f"{record['fault']} cost {record['lost_steps']} steps"


def late(outcome: dict[str, Any]) -> Iterator[str]:
    """What took longer than it has to, which says something on a quiet machine only."""
    for record in outcome["records"]:
        if record["detected"] > DETECTION_LIMIT_SECONDS:
            yield f"{record['fault']} was noticed after {record['detected']} s"


def campaign(
    faults: int,
    seed: int,
    faults_per_run: int = 15,
    epochs: int = 4,
    keep: Callable[[dict[str, Any]], None] = lambda outcome: None,
) -> dict[str, Any]:
    """Runs the campaign.

    Args:
        faults: At least so many.
        seed: Picks moments and victims.
        faults_per_run: At most about so many in one run.
        epochs: How long a run is, 120 steps each.
        keep: Told of the outcome so far after each run.

    Returns:
        `records` of the faults, and `runs`, each with what it had to endure and whether its weights
        are those of the undisturbed run.
    """
    with tempfile.TemporaryDirectory() as folder:
        extra = {
            "CHAOS_TRIGGER": f"{folder}/trigger",
            "PYTHONPATH": f"{HERE}/chaos_site:{HERE.parents[1]}",
        }
        with Nodes(Path(folder), WORKERS, **extra) as nodes:
            stage = Campaign(nodes, seed, epochs)
            wanted = stage.run("undisturbed", 0)["weights_sha256"]
            runs: list[dict[str, Any]] = []
            while len(stage.records) < faults:
                before = len(stage.records)
                result = stage.run(f"run{len(runs)}", min(faults_per_run, faults - before))
                runs.append(
                    {
                        "faults": len(stage.records) - before,
                        "restarts": result["restarts"],
                        "lost_steps": result["lost_steps"],
                        "equal": result["weights_sha256"] == wanted,
                    }
                )
                print(json.dumps(runs[-1]), flush=True)
                keep({"records": stage.records, "runs": runs})
            return {"records": stage.records, "runs": runs}


def report(outcome: dict[str, Any]) -> str:
    """The campaign as Markdown."""
    runs = outcome["runs"]
    return f"{table(outcome['records'])}\n\n" + (
        f"{len(outcome['records'])} faults in {len(runs)} runs; weights equal to the bit to the "
        f"undisturbed run's in {sum(run['equal'] for run in runs)} of {len(runs)}; at most "
        f"{max(record.get('lost_steps', 0) for record in outcome['records'])} steps lost at once, "
        f"with a checkpoint every {CHECKPOINT_STEPS} steps."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the figures in this JSON file")
    arguments = parser.parse_args()

    def keep(outcome: dict[str, Any]) -> None:
        if arguments.out:
            arguments.out.write_text(json.dumps(outcome, indent=1) + "\n")

    outcome = campaign(arguments.faults, arguments.seed, keep=keep)
    print(f"\n{report(outcome)}")
    problems = [*complaints(outcome), *late(outcome)]
    print("\n".join(problems))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
