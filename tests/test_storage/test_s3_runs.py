"""Whole runs in object storage: killed, cut off, resumed elsewhere, and no secret left behind."""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.storage.open import open_storage
from tests.kit.commands import SMOKE, command, environment, lines_of, result_of
from tests.kit.fault_proxy import FaultProxy
from tests.kit.object_store import ObjectStore

OFTEN = ("--checkpoint-every", "20")


class Between:
    """Looks at a run's requests, and tells when the n-th file of a checkpoint is on its way."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.reached = threading.Event()

    def __call__(self, method: str, path: str) -> None:
        if method == "PUT" and "/checkpoints/step-" in path:
            self.number -= 1
            if self.number == 0:
                self.reached.set()


@pytest.fixture
def proxy(store) -> Iterator[FaultProxy]:
    with FaultProxy(store.endpoint) as running:
        yield running


def start(place: str, folder: Path, env: dict[str, str], *extra: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            command("train", *SMOKE, *OFTEN, "--name", "r", "--storage", place, *extra),
            cwd=folder,
            env=environment(**env),
            stdout=log,
            stderr=log,
        )


def contents(place: str) -> dict[str, bytes]:
    root = open_storage(place)
    return {path: root.read(path, limit=1 << 30) for path in root.files()}


def result(place: str) -> dict:
    return json.loads(open_storage(place).read("r/result.json", limit=1 << 20))


def test_killed_and_resumed_elsewhere_it_ends_with_the_same_weights(
    lenet, s3, store, proxy, tmp_path, finished_run
):
    """The second command runs in another folder: all that it knows of the run is in the store."""
    proxy.choose = between = Between(14)
    first = start(s3, tmp_path / "here", store.env(proxy.endpoint))
    assert between.reached.wait(120)
    first.kill()
    first.wait()
    assert "epoch" in (tmp_path / "here/log").read_text()
    (tmp_path / "there").mkdir()
    done = lenet(
        *("train", *SMOKE, *OFTEN, "--name", "r", "--storage", s3),
        cwd=tmp_path / "there",
        **store.env(),
    )
    assert done.returncode == 0, done.stderr
    assert "continuing r at step" in done.stderr
    assert result(s3)["weights_sha256"] == result_of(finished_run)["weights_sha256"]
    assert result(s3)["restarts"] == 1
    assert list((tmp_path / "there").iterdir()) == []

    # The same places as on disk, so that a person finds them with any S3 browser.
    kept = {path.split("/")[1] for path in open_storage(s3).files()}
    assert kept == {path.name for path in finished_run.iterdir() if path.name[0] != "."}

    secret = [store.env()[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    logs = (tmp_path / "here/log").read_bytes() + (done.stderr + done.stdout).encode()
    for name, content in {**contents(s3), "logs": logs}.items():
        assert not [s for s in secret if s.encode() in content], f"a secret is in {name}"

    env = store.env()
    listed = json.loads(lenet("runs", "--storage", s3, "--json", cwd=tmp_path, **env).stdout)
    assert [(run["name"], run["state"]) for run in listed] == [("r", "finished")]
    scores = lenet("evaluate", f"{s3}/r", "--json", cwd=tmp_path, **env)
    assert json.loads(scores.stdout)["accuracy"] == result(s3)["test_accuracy"]


def test_a_server_that_dies_and_comes_back_costs_nothing(tmp_path, finished_run, monkeypatch):
    with ObjectStore(tmp_path / "s3") as own, FaultProxy(own.endpoint) as proxy:
        for name, value in own.env().items():
            monkeypatch.setenv(name, value)
        place = f"s3://{own.bucket}/runs"
        proxy.choose = between = Between(10)
        run = start(place, tmp_path / "run", own.env(proxy.endpoint))
        assert between.reached.wait(120)
        own.kill()
        own.restart()
        assert run.wait() == 0, (tmp_path / "run/log").read_text()
        assert result(place)["weights_sha256"] == result_of(finished_run)["weights_sha256"]
        assert result(place)["restarts"] == 0


def test_a_store_that_stays_away_ends_the_run_at_its_limit(tmp_path):
    with ObjectStore(tmp_path / "s3") as own, FaultProxy(own.endpoint) as proxy:
        proxy.choose = between = Between(8)
        run = start(
            f"s3://{own.bucket}/runs",
            tmp_path / "run",
            own.env(proxy.endpoint),
            *("--storage-timeout", "4"),
        )
        assert between.reached.wait(120)
        own.kill()
        assert run.wait() == 1
        *_, last = (tmp_path / "run/log").read_text().splitlines()
    assert last.startswith("error: ")
    assert "no answer for 4 s" in last
    assert "the last saved checkpoint is step" in last
    assert "continue with: lenet train --name r --storage s3://lenet/runs" in last


WRONG = {
    "bucket": ({}, f"s3://absent-{secrets.token_hex(4)}/x", "there is no bucket"),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""},
        None,
        "no AWS credentials were found",
    ),
    "endpoint": ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, None, "no answer for 10 s"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_place_that_can_not_be_used_is_refused_before_training(case, lenet, s3, store, tmp_path):
    changes, place, why = WRONG[case]
    done = lenet(
        *("train", *SMOKE, "--storage", place or s3), cwd=tmp_path, **(store.env() | changes)
    )
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert why in line
    assert not any(tmp_path.iterdir())


def test_who_may_only_read_is_refused_before_training(lenet, s3, store, tmp_path):
    done = lenet("train", *SMOKE, "--storage", s3, cwd=tmp_path, **store.env(reader=True))
    assert done.returncode == 2, done.stderr
    (line,) = lines_of(done.stderr)
    assert "no permission" in line
    assert open_storage(s3).files() == {}
