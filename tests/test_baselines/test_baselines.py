"""`lenet baselines`: methods on Ray, kept like runs, continued, and shown beside nets."""

from __future__ import annotations

import errno
import functools
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from cluster.tasks import on_cluster, run_tasks
from job.baselines.study import Study, prepare_study, run_baselines
from job.compare.record import Record
from job.errors import InputError, JobError, StopRequestedError
from job.training.progress import NoteTaker, Silent
from tests.kit.commands import lines_of, result_of, tree

TWO = "knn-deskewed,knn-gradients"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


def test_the_command(lenet, finished_run, tmp_path):
    """The methods and a net of the same rows in one table; the second time nothing is trained."""
    run = Path(shutil.copytree(finished_run, tmp_path / "runs" / "net"))
    command = ("baselines", "net", "--limit-train", "6000", "--methods", TWO)
    first = lenet(*command, "--json", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    rows = {row["title"]: row for row in document["rows"]}
    assert list(rows) == [*TWO.split(","), "lenet5"]
    assert (document["dataset"], document["train_rows"]) == ("mnist", 6000)
    assert rows["lenet5"]["test_accuracy"] == [result_of(run)["test_accuracy"]]
    assert rows["lenet5"]["test_seconds"] == [result_of(run)["test_seconds"]]
    assert rows["knn-deskewed"]["test_accuracy"][0] > 0.95
    assert rows["knn-gradients"]["test_accuracy"][0] > 0.97
    assert sorted(line.split(":")[0] for line in lines_of(first.stderr)) == TWO.split(",")

    before = tree(tmp_path / "runs")
    again = lenet(*command, cwd=tmp_path)
    assert (again.returncode, again.stderr) == (0, "")
    assert all(title in again.stdout for title in rows)
    assert tree(tmp_path / "runs") == before

    folder = "runs/baselines-mnist-6000"
    compared = lenet("compare", "net", f"{folder}/knn-gradients", "--json", cwd=tmp_path)
    (test,) = json.loads(compared.stdout)["tests"]
    differing = test["only_second_right"] - test["only_first_right"]
    accuracies = [rows[name]["test_accuracy"][0] for name in ("knn-gradients", "lenet5")]
    assert differing == round(10_000 * (accuracies[0] - accuracies[1]))
    whole = lenet("compare", "net", "baselines-mnist-6000", cwd=tmp_path)
    assert f"such as {folder}/knn-deskewed" in whole.stderr
    assert len(json.loads(lenet("runs", "--json", cwd=tmp_path).stdout)) == 1


def trained(study: Study, progress: NoteTaker, stop: Callable[[], int]) -> list[Record]:
    workers = functools.partial(on_cluster, study.config.address)
    return run_baselines(study, progress, stop, workers)


def test_what_was_finished_is_not_repeated(cluster, tmp_path, mnist):
    names = ["knn-pixels", "knn-deskewed"]
    given = {"storage": str(tmp_path), "limit_train": "500", "methods": ",".join(names)}
    folder = tmp_path / "baselines-mnist-500"
    finished: list[str] = []

    class Notes(Silent):
        def note(self, message: str) -> None:
            finished.append(message.split(":")[0])

    def stop() -> int:
        return signal.SIGINT if finished else 0

    with pytest.raises(StopRequestedError) as stopped:
        trained(prepare_study(given), Notes(), stop)
    assert stopped.value.exit_code == 130
    (other,) = set(names) - set(finished)
    assert f"stopped with {other} to do" in str(stopped.value)
    assert f"lenet baselines --name {folder.name} --storage {tmp_path}" in str(stopped.value)
    assert f"--methods {','.join(names)}" in str(stopped.value)
    kept = tree(folder / finished[0])
    assert {"result.json", "data.json", "test_predictions.parquet"} == kept.keys()

    # What a crash left of the other one.
    (folder / other).mkdir(exist_ok=True)
    (folder / other / "test_predictions.parquet").write_bytes(b"half")
    methods = trained(prepare_study(given), Notes(), lambda: 0)
    assert [method.model for method in methods] == names
    assert finished[1:] == [other]
    assert tree(folder / finished[0]) == kept
    assert all(method.predictions.accuracy == method.test_accuracy for method in methods)

    one = {**given, "methods": "knn-pixels"}
    (method,) = trained(prepare_study(one, overwrite=True), Notes(), lambda: 0)
    assert finished[2:] == [method.model] == ["knn-pixels"]
    assert not (folder / "knn-deskewed").exists()


def test_a_name_is_taken_by_who_comes_first(cluster, tmp_path, mnist):
    given = {"storage": str(tmp_path), "limit_train": "500", "methods": "knn-pixels", "name": "b"}
    first, second = prepare_study(given), prepare_study(given)
    with (
        first.folder.storage.locked(),
        pytest.raises(InputError, match=r"process \d+ on .* trains these"),
    ):
        trained(second, Silent(), lambda: 0)
    with pytest.raises(StopRequestedError):
        trained(first, Silent(), lambda: signal.SIGINT)
    with pytest.raises(InputError, match="used this name just now"):
        trained(second, Silent(), lambda: signal.SIGINT)


def test_tasks_come_back_with_their_names(cluster):
    def broken(shared: str, name: str) -> str:
        if name == "bad":
            raise ValueError(f"{shared} is no use\nat all")
        if name == "full":
            raise OSError(errno.ENOSPC, "No space left on device", "/x")
        return shared + name

    assert dict(run_tasks(broken, "x", ["a", "b", "c"])) == {"a": "xa", "b": "xb", "c": "xc"}
    assert list(run_tasks(broken, "x", ["a"], lambda: signal.SIGINT)) == []
    with pytest.raises(JobError, match=r"^full: /x: No space left on device; free some space"):
        list(run_tasks(broken, "x", ["full"]))
    # A defect, of which one wants to know where it is.
    with pytest.raises(
        ray.exceptions.RayTaskError, match=r"(?s)in broken.*ValueError: x is no use"
    ):
        list(run_tasks(broken, "x", ["bad"]))


@pytest.mark.timeout(90)
def test_tasks_that_nobody_waits_for_leave_their_processors(cluster):
    found: list[str] = []

    def sleeping(shared: None, name: str) -> None:
        time.sleep(3600 if name.startswith("slow") else 0)

    for name, _ in run_tasks(sleeping, None, ["slow", "quick", "slower"], lambda: len(found)):
        found.append(name)
    assert found == ["quick"]
    assert {name for name, _ in run_tasks(sleeping, None, ["a", "b"])} == {"a", "b"}


REFUSED = {
    "unknown method": (["--methods", "knn-pixel"], "--methods 'knn-pixel'", "did you mean"),
    "no method": (["--methods", ""], "--methods", "choose one of"),
    "too many rows": (["--limit-train", "48001"], "--limit-train '48001'", "48,000"),
    "one label": (["--limit-train", "1"], "--limit-train '1'", "all have one label"),
    "a run of fewer rows": (["net"], "RUN 'net'", "was trained on 6,000 rows, these on 48,000"),
    "a run of other data": (
        ["net", "--dataset", "fashion-mnist"],
        "RUN 'net'",
        "was trained on mnist",
    ),
    "a run that is none": (["lost"], "RUN 'lost'", "no run in runs/lost"),
    "the name of a run": (["--name", "net"], "--name 'net'", "holds no baselines"),
    "no cluster": (["--address", "127.0.0.1:1"], "--address", "no Ray cluster answers"),
    "no storage": (["--storage", "runs/net/result.json"], "--storage", "can't be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refuses(case, lenet, finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "runs" / "net")
    arguments, where, why = REFUSED[case]
    before = tree(tmp_path)
    done = lenet("baselines", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert where in done.stderr
    assert why in done.stderr
    assert tree(tmp_path) == before


def test_a_name_keeps_its_settings(tmp_path, mnist, cluster):
    given = {"storage": str(tmp_path), "name": "b", "methods": "knn-deskewed"}
    trained(prepare_study({**given, "limit_train": "500"}), Silent(), lambda: 0)
    assert prepare_study(given).config.limit_train == 500
    assert prepare_study({"storage": str(tmp_path), "name": "b"}).missing()[-1] == "svm-gradients"
    with pytest.raises(InputError, match=r"--limit-train '600': study 'b' was started with 500"):
        prepare_study({**given, "limit_train": "600"})
    # What is usual here is for new studies.
    usual = {"limit_train": "600", "name": "b", "storage": str(tmp_path), "methods": "svm-poly9"}
    assert prepare_study({}, usual=usual).config.limit_train == 500
    assert prepare_study({"name": "c"}, usual=usual).config.limit_train == 600
    (tmp_path / "b").rename(tmp_path / "baselines-mnist-500")
    usual = {"limit_train": "500", "address": "local", "storage": str(tmp_path)}
    assert prepare_study({}, usual=usual).config.address != "local"
    (tmp_path / "baselines-mnist-500" / "baselines.json").write_text("{")
    with pytest.raises(InputError, match="can't be continued"):
        prepare_study({**given, "name": "baselines-mnist-500"})
