"""The kill campaign: a run on simulated nodes is disturbed again and again, and has to end with the
weights of an undisturbed one.

    python tests/chaos.py --kills 100 --seed 1

A seed picks the faults and their moments. Nodes are real Ray processes (`ray.cluster_utils`), each
with one worker; the driver is the `lenet` command. Prints a table of detection and recovery times;
exit code 1 when a run did not finish, ended with other weights, or lost more than an interval.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
WORKERS = 2
CHECKPOINT_STEPS = 25
SETTINGS = [
    *("--limit-train", "12000", "--batch-size", "100", "--epochs", "4"),
    *("--checkpoint-every", str(CHECKPOINT_STEPS), "--workers", str(WORKERS)),
    *("--cpus-per-worker", "1", "--max-failures", "1000"),
]
FAULTS = ("kill worker", "stop worker", "kill raylet", "kill driver", "kill in checkpoint")
# The disk operations of one checkpoint: three or four files, each fsync, replace, fsync.
CHECKPOINT_OPERATIONS = 12
# The step noted on disk is at most this many seconds old.
WAIT_SECONDS = 180.0


class Campaign:
    """A cluster of simulated nodes and one run on it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.trigger = folder / "trigger"
        self.nodes: list[Any] = []
        self.driver: subprocess.Popen | None = None
        self.records: list[dict[str, Any]] = []

    def __enter__(self) -> Campaign:
        from cluster.session import FAULT_DETECTION, TRAIN_SETTINGS

        path = os.pathsep.join([str(HERE / "chaos_site"), os.environ.get("PYTHONPATH", "")])
        os.environ |= {
            **FAULT_DETECTION,
            **TRAIN_SETTINGS,
            "PYTHONPATH": path,
            "CHAOS_TRIGGER": str(self.trigger),
        }
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(WORKERS):
            self.add_node()
        return self

    def __exit__(self, *_: object) -> None:
        if self.driver and self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        self.cluster.shutdown()

    def add_node(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1))

    def run(self, name: str, kills: int) -> dict[str, Any]:
        """Trains one run under so many faults; returns its result."""
        self.start(name)
        for _ in range(kills):
            if not self.disturb(name):
                break
        return self.finish(name)

    def start(self, name: str) -> None:
        command = [sys.executable, "-m", "job.cli", "train", "--name", name, *SETTINGS]
        command += ["--address", self.cluster.address, "--storage", str(self.folder / "runs")]
        with (self.folder / f"{name}.log").open("a") as log:
            self.driver = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)

    def finish(self, name: str) -> dict[str, Any]:
        code = self.driver.wait()
        log = (self.folder / f"{name}.log").read_text()
        if code != 0:
            raise SystemExit(f"{name} ended with {code}:\n{log}")
        return json.loads((self.folder / "runs" / name / "result.json").read_text())

    def disturb(self, name: str) -> bool:
        """One fault, somewhere in the next steps. False when the run had ended before it."""
        moment = self.step(name) + self.random.randrange(5, 60)
        fault = self.random.choice(FAULTS)
        if not self.wait(lambda: self.step(name) >= moment):
            return False
        victims = self.workers()
        if len(victims) < WORKERS:
            return True
        before, began = self.step(name), time.monotonic()
        self.inject(fault, victims)
        if not self.wait(lambda: not any(alive(process) for process in victims)):
            return False
        detected = time.monotonic() - began
        if fault == "kill driver":
            self.driver.wait()
            self.start(name)
        if fault == "kill raylet":
            self.add_node()
        if not self.wait(lambda: self.step(name) > before):
            return False
        record = {"fault": fault, "detected": detected, "recovered": time.monotonic() - began}
        self.records.append(record)
        print(json.dumps({"run": name, "step": before, **record}), file=sys.stderr, flush=True)
        return True

    def inject(self, fault: str, victims: list[psutil.Process]) -> None:
        victim = self.random.choice(victims)
        match fault:
            case "kill worker":
                victim.kill()
            case "stop worker":
                victim.suspend()
            case "kill raylet":
                node = self.nodes.pop(self.random.randrange(len(self.nodes)))
                # Not a farewell: the raylet dies without telling anyone.
                self.cluster.remove_node(node, allow_graceful=False)
            case "kill driver":
                self.driver.kill()
            case "kill in checkpoint":
                self.trigger.write_text(str(self.random.randrange(CHECKPOINT_OPERATIONS)))

    def step(self, name: str) -> int:
        """The furthest step noted by the run."""
        try:
            notes = (self.folder / "runs" / name / "reached.json").read_text()
            return int(json.loads(notes)["step"])
        except FileNotFoundError:
            return 0

    def wait(self, condition) -> bool:
        """Waits for a condition; False when the run ends first."""
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            # A killed driver is no end of the run.
            if self.driver.poll() not in (None, -signal.SIGKILL):
                return False
            if time.monotonic() > deadline:
                raise SystemExit(f"nothing happened for {WAIT_SECONDS:.0f} s")
            time.sleep(0.02)
        return True

    def workers(self) -> list[psutil.Process]:
        """Ray Train's worker processes below this campaign's nodes."""
        return [
            process
            for process in psutil.Process().children(recursive=True)
            if alive(process) and "RayTrainWorker" in " ".join(process.cmdline())
        ]


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def table(records: list[dict[str, Any]]) -> str:
    """Detection (fault to the end of the attempt's last worker) and recovery (fault to the first
    new step), by fault."""
    lines = [
        "| fault | n | detected, s: median (max) | training again, s: median (max) |",
        "|---|---|---|---|",
    ]
    for fault in FAULTS:
        group = [record for record in records if record["fault"] == fault]
        if group:
            cells = [
                f"{statistics.median(r[key] for r in group):.1f} ({max(r[key] for r in group):.1f})"
                for key in ("detected", "recovered")
            ]
            lines.append(f"| {fault} | {len(group)} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def campaign(kills: int, seed: int, kills_per_run: int = 5) -> dict[str, Any]:
    """Runs the campaign.

    Returns:
        `records` of the faults, `runs` with result and verdict, `ok`.
    """
    with tempfile.TemporaryDirectory() as folder, Campaign(Path(folder), seed) as stage:
        wanted = stage.run("undisturbed", 0)["weights_sha256"]
        runs: list[dict[str, Any]] = []
        while len(stage.records) < kills:
            before = len(stage.records)
            result = stage.run(f"run{len(runs)}", min(kills_per_run, kills - before))
            faults = len(stage.records) - before
            runs.append(
                {
                    "faults": faults,
                    "restarts": result["restarts"],
                    "lost_steps": result["lost_steps"],
                    "equal": result["weights_sha256"] == wanted,
                }
            )
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
        return {"records": stage.records, "runs": runs, "ok": all(r["equal"] for r in runs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    outcome = campaign(arguments.kills, arguments.seed)
    print(table(outcome["records"]))
    lost = sum(run["lost_steps"] for run in outcome["runs"])
    print(
        f"\n{len(outcome['records'])} faults in {len(outcome['runs'])} runs; weights equal to the "
        f"undisturbed run's in {sum(r['equal'] for r in outcome['runs'])} of them; "
        f"{lost} steps trained again, with a checkpoint every {CHECKPOINT_STEPS} steps"
    )
    sys.exit(0 if outcome["ok"] else 1)


if __name__ == "__main__":
    main()
