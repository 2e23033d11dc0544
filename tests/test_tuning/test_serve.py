"""`lenet report --serve`: a page that follows its sweep, for this machine alone."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from job.errors import InputError
from job.storage.disk import LocalStorage
from tests.kit.commands import command, environment, tree
from tests.kit.report_data import BEGAN, history, keep, keep_run, realistic_sweep
from tuning.records import FINISHED, UNFINISHED, Outcome, Sweep, read_sweep, write_outcome
from tuning.report import serve as module
from tuning.report.command import open_target, report
from tuning.report.frame import Price
from tuning.report.serve import HOST, Live, Server

KEPT = Path(__file__).parents[1] / "test_runs" / "kept" / "sweep"


@pytest.fixture
def place(tmp_path, monkeypatch) -> LocalStorage:
    """A current folder in whose `runs/s` a sweep goes on: trial 15 is in training."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "HOLDS_SECONDS", 0.0)
    folder = LocalStorage("runs/s")
    keep(folder, realistic_sweep(ended=False))
    return folder


@contextlib.contextmanager
def served(*names: str, price: Price | None = None) -> Iterator[Server]:
    with Server(Live(names, "runs", price)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(place) -> Iterator[Server]:
    with served("s") as running:
        yield running


@dataclasses.dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    text: str


def ask(server: Server, path: str = "/", method: str = "GET", **headers: str) -> Answer:
    connection = http.client.HTTPConnection(HOST, server.server_port)
    connection.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    found = Answer(answer.status, answer.headers, answer.read().decode())
    connection.close()
    return found


def end(place: LocalStorage, number: int) -> None:
    plan = realistic_sweep(ended=False).trials[number].plan
    rows = history(0.97, 9)
    write_outcome(place, plan, Outcome(state=FINISHED, history=rows, started=BEGAN, seconds=88.0))


def test_a_trial_that_ends_makes_another_page(place, server):
    first = ask(server)
    assert (first.status, first.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    tag = first.headers["ETag"]
    assert f'data-version="{tag[1:-1]}"' in first.text
    assert "connect-src &#39;self&#39;" in first.text
    assert ask(server, If_None_Match=tag).status == 304
    end(place, 15)
    head = ask(server, method="HEAD", If_None_Match=tag)
    assert (head.status, head.text) == (200, "")
    assert head.headers["ETag"] != tag
    table = ask(server, "/trials.csv")
    assert table.text.splitlines()[-1].startswith('15,"search",,false,"finished",')
    assert table.headers["ETag"] == head.headers["ETag"]


def test_so_does_an_epoch_of_a_trial_that_trains(place, server):
    def epochs() -> int:
        rows = ask(server, "/epochs.csv").text.splitlines()
        return sum(row.startswith("15,") for row in rows)

    assert epochs() == 0
    for trained in (1, 2):
        shutil.rmtree("runs/s/trials/0015", ignore_errors=True)
        keep_run(place.at("trials"), "0015", epochs=trained, ended=False)
        assert epochs() == trained


def test_what_was_read_is_not_read_again_at_once(place, monkeypatch):
    """A store of objects takes money for each request."""
    monkeypatch.setattr(module, "HOLDS_SECONDS", 1e9)
    with served("s") as server:
        tag = ask(server).headers["ETag"]
        end(place, 15)
        assert ask(server).headers["ETag"] == tag


def test_of_a_sweep_that_is_known_only_what_is_new_is_read(place):
    known = read_sweep(place)
    for part in ("plans", "outcomes"):
        Path(f"runs/s/{part}/0002.json").write_text("nothing reads this")
    end(place, 15)
    (*others, last) = read_sweep(place, known).trials
    assert tuple(others) == known.trials[:-1]
    assert last.outcome.state == FINISHED
    with pytest.raises(ValueError, match=r"0002\.json is not what a sweep writes"):
        read_sweep(place)
    # Another of the same name is another sweep.
    settings = Path("runs/s/sweep.json")
    settings.write_text(settings.read_text().replace('"random"', '"grid"'))
    with pytest.raises(ValueError, match=r"0002\.json"):
        read_sweep(place, known)


def test_a_run_that_can_not_be_read_takes_no_report_away(place, caplog):
    keep_run(place.at("trials"), "0015", epochs=1, ended=False)
    place.write("trials/0015/config.json", b"{")
    found = open_target("s", "runs")
    assert isinstance(found, Sweep)
    assert found.trials[15].outcome == Outcome()
    assert "trial 15 is shown without its epochs: " in caplog.text


def test_a_sweep_of_an_earlier_version_is_shown_with_what_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(KEPT, "runs/old")
    assert report(["old"])[0] == "report-old/report.html"
    found = open_target("old", "runs")
    assert isinstance(found, Sweep)
    trained = [(t.outcome.state, len(t.outcome.history)) for t in found.trials]
    assert trained[1:] == [(UNFINISHED, 1), (UNFINISHED, 0)]


def test_before_the_first_epoch_it_says_so_and_looks_again(place):
    shutil.rmtree("runs/s/outcomes")
    with served("s") as server:
        answer = ask(server)
        assert (answer.status, answer.headers["Refresh"]) == (503, "5")
        assert "has no trial with a finished epoch yet; let it go on" in answer.text
        end(place, 3)
        assert ask(server).status == 200


def test_runs_are_followed_as_well(place):
    keep_run(LocalStorage("runs"), "r", epochs=2, ended=False)
    with served("r") as server:
        assert ask(server).status == 200
        assert len(ask(server, "/epochs.csv").text.splitlines()) == 3


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", ""])
def test_a_name_that_is_not_this_machines_is_refused(server, host):
    """A page of another site may have its name lead here, and read what is answered."""
    answer = ask(server, Host=host)
    assert answer.status == 421
    assert answer.text == f"call it {server.url}\n"


def test_it_answers_this_machine_with_the_reports_files_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server, Host="localhost:9999").status == 200
    for path in ("/sweep.json", "/../sweep.json", "/..%2f..%2fetc/passwd", "/runs/s/"):
        assert ask(server, path).status == 404
    for header, value in module.HEADERS.items():
        assert ask(server).headers[header] == value
    assert ask(server, method="POST").status == 501


def test_a_price_is_shown(place):
    with served("s", price=Price(amount=0.5, currency="EUR")) as server:
        assert "0.5\u202fEUR per hour" in ask(server).text


def test_the_command_says_where_and_writes_nothing(place, tmp_path):
    before = tree(tmp_path)
    serving = subprocess.Popen(
        command("report", "s", "--serve", "--json"),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        # Where a shell has it ignored, Ctrl-C would be ignored here, too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert serving.stdout is not None
        url = json.loads(serving.stdout.readline())["url"]
        connection = http.client.HTTPConnection(url.removeprefix("http://").rstrip("/"))
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        serving.send_signal(signal.SIGINT)
        assert serving.wait(60) == 0
    finally:
        serving.kill()
        serving.communicate()
    assert tree(tmp_path) == before


def test_what_can_not_be_served_is_said(place, lenet, tmp_path):
    done = lenet("report", "s", "--serve", "--out", "o", cwd=tmp_path)
    assert done.returncode == 2
    assert "--out 'o': nothing is written with --serve; leave one of them out" in done.stderr
    done = lenet("report", "nowhere", "--serve", cwd=tmp_path)
    assert done.returncode == 2
    assert "no sweep and no run in runs/nowhere" in done.stderr
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port '{port}': can't be had: "):
            Server(Live(["s"], "runs"), port)
