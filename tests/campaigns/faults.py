"""The fault campaign: checkpoints are written and read through a proxy that spoils requests, by
processes that die, on a server that dies; what was acknowledged has to be there, and nothing else.

    python -m tests.campaigns.faults --faults 1000 --seed 1 --out docs/results/faults.json

Every kind of fault of `fault_proxy` is injected, with a seed. Beside them the client dies before or
after a random request, and the server is killed and started again. After each step a client that
reaches the server directly looks at what is there. Half of the faults are injected into http, half
into https. Exit code 1 when a restore returned anything else than was saved, or a save that had
returned was not there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from job.storage.checkpoints import CheckpointStore
from job.storage.s3 import Connection, S3Storage
from tests.kit.fault_proxy import Chance, FaultProxy, self_signed
from tests.kit.object_store import ObjectStore

RATE = 0.35
HOLD_SECONDS = 1.2
PATIENCE_SECONDS = 120.0
READ_SECONDS = 1.0
SAVES_PER_RUN = 12
DEATHS = 0.15
# Of a client's requests in one save or restore, about as many as there are.
REQUESTS_OF_A_SAVE = 8


class Dead(BaseException):
    """The client died here."""


class Mortal(S3Storage):
    """A client that may die at a request: before it was sent, or before its answer was read."""

    deadline: int | None = None
    is_after = False

    def at(self, path: str) -> Mortal:
        raise NotImplementedError

    def _repeated(self, request: Callable[[Any], Any]) -> Any:
        if self.deadline is None:
            return super()._repeated(request)
        self.deadline -= 1
        if self.deadline < 0 and not self.is_after:
            raise Dead
        answer = super()._repeated(request)
        if self.deadline < 0:
            raise Dead
        return answer


class Campaign:
    """Runs of checkpoints on one store behind one proxy."""

    def __init__(self, store: ObjectStore, proxy: FaultProxy, seed: int) -> None:
        self.store, self.proxy = store, proxy
        self.random = random.Random(seed)
        self.count: Counter[str] = Counter()
        os.environ.update(store.env())
        self.direct = Connection(patience=PATIENCE_SECONDS)
        self.direct.client()
        # From here on a client that reads its settings anew, as after an expired token, meets the
        # proxy again.
        os.environ.update(store.env(proxy.endpoint))
        self.faulty = Connection(patience=PATIENCE_SECONDS, read_timeout=READ_SECONDS)

    def go_on(self, faults: int) -> None:
        """Runs until so many faults were injected."""
        while sum(self.proxy.injected.values()) < faults:
            self.count["runs"] += 1
            runs = self.count["runs"]
            # Somewhere in every fourth run the server dies too.
            if runs % 4 == 1:
                death = threading.Timer(self.random.uniform(0.2, 2.0), self.store.restart)
                death.start()
                self.run(f"run{runs}")
                death.join()
                self.count["deaths of the server"] += 1
            else:
                self.run(f"run{runs}")
            print(sum(self.proxy.injected.values()), dict(self.count), file=sys.stderr)

    def run(self, name: str) -> None:
        """A dozen checkpoints of one run, with deaths and restarts between them."""
        acknowledged: dict[int, dict[str, bytes]] = {}
        step = 0
        writer = self.begin(name)
        for _ in range(SAVES_PER_RUN):
            step += self.random.randrange(1, 50)
            files = {n: self.random.randbytes(self.random.randrange(200_000)) for n in "ab"}
            if self.random.random() < DEATHS:
                writer.storage.deadline = self.random.randrange(REQUESTS_OF_A_SAVE)
                writer.storage.is_after = self.random.random() < 0.5
            try:
                writer.checkpoints.save(step, files, val_loss=self.random.random())
                acknowledged[step] = files
                self.count["saves"] += 1
                self.look(name, acknowledged, None)
            except Dead:
                self.count["deaths of the client"] += 1
                self.look(name, acknowledged, (step, files))
                writer = self.begin(name)
                restored = writer.checkpoints.restore()
                # It may have been committed although nobody was told.
                if restored is not None and restored.step == step:
                    acknowledged[step] = files
                self.compare(restored, acknowledged)
            writer.storage.deadline = None

    def begin(self, name: str) -> Writer:
        writer = Writer(Mortal(self.store.bucket, name, self.faulty))
        writer.checkpoints.claim()
        return writer

    def look(
        self,
        name: str,
        acknowledged: dict[int, dict[str, bytes]],
        under_way: tuple[int, dict[str, bytes]] | None,
    ) -> None:
        """What a client that reaches the server directly finds."""
        reader = CheckpointStore(S3Storage(self.store.bucket, name, self.direct), "job")
        restored = reader.restore()
        if under_way and restored is not None and restored.step == under_way[0]:
            acknowledged = {**acknowledged, under_way[0]: under_way[1]}
        self.compare(restored, acknowledged)

    def compare(self, restored: Any, acknowledged: dict[int, dict[str, bytes]]) -> None:
        self.count["restores"] += 1
        newest = max(acknowledged, default=None)
        if (restored and restored.step) != newest or (restored and restored.skipped):
            self.count["lost commits"] += 1
        elif restored and restored.files != acknowledged[restored.step]:
            self.count["wrong restores"] += 1


class Writer:
    """A training process, as far as checkpoints are concerned."""

    def __init__(self, storage: Mortal) -> None:
        self.storage = storage
        self.checkpoints = CheckpointStore(storage, "job")


def campaign(faults: int, seed: int) -> dict[str, Any]:
    """Runs the campaign until so many faults were injected, half of them over TLS.

    Returns:
        `faults` by kind, and `counts` of what was done and what went wrong.
    """
    plain, tls = (_over(tls, faults // 2, seed + tls) for tls in (False, True))
    both = {part: dict(Counter(plain[part]) + Counter(tls[part])) for part in plain}
    wrong = {name: both["counts"].get(name, 0) for name in ("wrong restores", "lost commits")}
    return {"faults": dict(sorted(both["faults"].items())), "counts": both["counts"] | wrong}


def _over(tls: bool, faults: int, seed: int) -> dict[str, Counter[str]]:
    before = dict(os.environ)
    try:
        with tempfile.TemporaryDirectory() as folder:
            certificate = self_signed(Path(folder)) if tls else None
            if certificate:
                os.environ["AWS_CA_BUNDLE"] = str(certificate)
            with (
                ObjectStore(Path(folder) / "s3") as store,
                FaultProxy(store.endpoint, Chance(seed, RATE), certificate) as proxy,
            ):
                proxy.hold = HOLD_SECONDS
                stage = Campaign(store, proxy, seed)
                stage.go_on(faults)
                requests = Counter(requests=len(proxy.requests))
                return {"faults": proxy.injected, "counts": stage.count + requests}
    finally:
        os.environ.clear()
        os.environ.update(before)


def report(outcome: dict[str, Any]) -> str:
    """The campaign as Markdown."""
    faults, counts = outcome["faults"], outcome["counts"]
    kinds = ", ".join(f"{count} × {name}" for name, count in faults.items())
    return (
        f"{sum(faults.values()):,} faults, half of them over TLS, in {counts['requests']:,} "
        f"requests of {counts['runs']} runs ({kinds}); "
        f"the client died {counts['deaths of the client']} times, "
        f"the server {counts['deaths of the server']} times. {counts['saves']} acknowledged "
        f"checkpoints, {counts['restores']} restores: **{counts['wrong restores']} wrong restores, "
        f"{counts['lost commits']} lost commits**."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=1000, help="half of them over TLS")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the figures in this JSON file")
    arguments = parser.parse_args()
    outcome = campaign(arguments.faults, arguments.seed)
    if arguments.out:
        arguments.out.write_text(json.dumps(outcome, indent=1) + "\n")
    print(report(outcome))
    counts = outcome["counts"]
    sys.exit(1 if counts["wrong restores"] or counts["lost commits"] else 0)


if __name__ == "__main__":
    main()
