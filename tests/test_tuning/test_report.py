"""The report says what the records say, whatever is in them, or nothing at all."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
import statistics
import subprocess
import sys
from html.parser import HTMLParser

import pyarrow.csv
import pyarrow.parquet
import pytest
import vl_convert

from job.config.resolve import resolve
from job.data.catalogue import CATALOGUE
from job.errors import InputError
from job.runs.data import keep_dataset
from job.storage.disk import LocalStorage
from tests.kit.report_data import (
    BEGAN,
    EPOCHS,
    HOSTILE,
    TRIALS,
    hostile_sweep,
    keep,
    keep_run,
    realistic_sweep,
)
from tuning.records import FINISHED, SEARCH, STOPPED, UNFINISHED, Outcome, Plan, Sweep, Trial, merit
from tuning.report import totals as facts
from tuning.report.charts.curves import Line, curves
from tuning.report.charts.importance import (
    MIN_TRIALS,
    drawn_parameters,
    epsilon_squared,
    importances,
)
from tuning.report.charts.parameters import Parameter, binned, plain
from tuning.report.command import report, write_report
from tuning.report.frame import Frame, Price, price_of
from tuning.report.page import embedded
from tuning.report.runs import ranked

THIN = "\u202f"
FRAME = Frame(written=BEGAN)
PRICED = Frame(written=BEGAN, price=Price(amount=0.8, currency="EUR"))


class Page(HTMLParser):
    """A page's elements, its texts, and the rows of its tables by id or heading."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._skipping = self._in_cell = False
        self.feed(content.decode())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._skipping = tag in ("script", "style")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag):
        self._skipping = False
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data):
        if self._skipping:
            return
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def rows_of(self, first: str) -> list[list[str]]:
        """The cells of each row that begins so."""
        found = [[cell.strip() for cell in row] for row in self.rows if row]
        return [row for row in found if row[0] == first]

    def row(self, first: str, table: int = -1) -> list[str]:
        """The cells of the row that begins so; by default of the last such row."""
        return self.rows_of(first)[table]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.fixture(scope="module")
def sweep() -> Sweep:
    return realistic_sweep()


@pytest.fixture(scope="module")
def files(sweep) -> dict[str, bytes]:
    return write_report([sweep], PRICED)


@pytest.fixture(scope="module")
def page(files) -> Page:
    return Page(files["report.html"])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with `runs/` in it."""
    monkeypatch.chdir(tmp_path)
    return LocalStorage("runs")


def data_of(content: bytes) -> dict:
    pattern = r'<script type="application/json" id="data">(.*?)</script>'
    return json.loads(re.search(pattern, content.decode(), re.S)[1])


def test_tables_hold_the_records_to_the_last_digit(sweep, files):
    read = {
        "csv": pyarrow.csv.read_csv(io.BytesIO(files["trials.csv"])).to_pylist(),
        "parquet": pyarrow.parquet.read_table(io.BytesIO(files["trials.parquet"])).to_pylist(),
    }
    for kind, rows in read.items():
        assert len(rows) == len(sweep.trials) == 18
        for trial, row in zip(sweep.trials, rows, strict=True):
            best = trial.outcome.best
            assert row["trial"] == trial.plan.number
            assert row["state"] == trial.outcome.state
            assert row["repeats"] == trial.plan.repeats
            for name, value in trial.plan.settings.items():
                assert row[f"settings.{name}"] == value
            assert row["epochs"] == len(trial.outcome.history)
            assert row["val_accuracy"] == (best and best.val_accuracy)
            assert row["val_loss"] == (best and best.val_loss)
            if trial.outcome.state == UNFINISHED:
                assert row["train_seconds"] is row["total_seconds"] is row["cost"] is None
                assert row["cpu_hours"] is row["gpu_hours"] is None
            else:
                assert row["train_seconds"] == pytest.approx(trial.outcome.train_seconds, rel=1e-15)
                assert row["total_seconds"] == trial.outcome.seconds
                assert row["cost"] == pytest.approx(trial.outcome.seconds / 3600 * 0.8, rel=1e-15)
                assert row["cpu_hours"] == pytest.approx(trial.outcome.seconds / 3600, rel=1e-15)
                assert row["gpu_hours"] == 0
            assert row["currency"] == "EUR"
            # CSV knows no difference between no text and none.
            assert (row["error"] or "") == trial.outcome.error
        tested = {row["trial"]: row["test_accuracy"] for row in rows if row["test_accuracy"]}
        assert tested == dict(zip(sweep.winner.members, sweep.winner.test_accuracy, strict=True)), (
            kind
        )
        assert [row["trial"] for row in rows if row["winner"]] == [2]


def test_epochs_hold_every_history(sweep, files):
    rows = pyarrow.parquet.read_table(io.BytesIO(files["epochs.parquet"])).to_pylist()
    written = [
        {"trial": trial.plan.number, **dataclasses.asdict(row)}
        for trial in sweep.trials
        for row in trial.outcome.history
    ]
    assert rows == written
    assert len(pyarrow.csv.read_csv(io.BytesIO(files["epochs.csv"]))) == len(written)


def test_the_page_shows_every_trial(sweep, page):
    for trial in sweep.trials:
        # Those of the front and failed ones have rows in other tables, too.
        found = page.rows_of(str(trial.plan.number))
        (row,) = [row for row in found if row[1].startswith(trial.outcome.state)]
        best = trial.outcome.best
        assert row[2:4] == [
            str(trial.plan.settings["batch_size"]),
            trial.plan.settings["optimizer"],
        ]
        assert row[4] == f"{trial.plan.settings['learning_rate']:.4g}"
        assert row[5:7] == [str(trial.plan.seed), str(len(trial.outcome.history))]
        assert row[7] == (f"{best.val_accuracy * 100:.2f}{THIN}%" if best else "–")
        assert row[8] == (f"{best.val_loss:.4f}" if best else "–")
    for number, error in ((6, "the loss became NaN"), (12, "the process was lost 4 times")):
        assert error in page.row(str(number))[4]


def test_the_winner_heads_the_page(sweep, page):
    mean = statistics.fmean(sweep.winner.test_accuracy) * 100
    deviation = statistics.stdev(sweep.winner.test_accuracy) * 100
    assert "Winner: trial 2" in page.words
    assert f"{mean:.2f} ± {deviation:.2f} %" in page.words
    assert "n = 3 seeds" in page.words
    assert sweep.winner.command in page.words
    assert "not known yet" not in page.words


def test_without_a_winner_the_page_says_so():
    sweep = realistic_sweep(ended=False)
    shown = Page(write_report([sweep], FRAME)["report.html"]).words
    best = max((t for t in sweep.trials), key=lambda t: merit(t.outcome))
    assert f"Leading so far: trial {best.plan.number}" in shown
    assert "not known yet" in shown
    rate = best.plan.settings["learning_rate"]
    assert "lenet train --model lenet5 --recipe quick" in shown
    assert f"--epochs {EPOCHS} --batch-size" in shown
    assert f"--learning-rate {rate}" in shown
    # Without a price there is no cost.
    assert "give --price-per-hour" in shown


def test_what_stopping_saved(sweep, page):
    ended = [t for t in sweep.trials if t.plan.kind == SEARCH]
    ended = [t.outcome for t in ended if t.outcome.state in (FINISHED, STOPPED)]
    trained = sum(len(o.history) for o in ended)
    saved = facts.savings(sweep)
    assert (saved.trained, saved.whole) == (trained, len(ended) * EPOCHS)
    missing = sum(
        (EPOCHS - len(o.history)) * o.train_seconds / len(o.history)
        for o in ended
        if o.state == STOPPED
    )
    assert saved.seconds == pytest.approx(missing)
    assert f"trained {trained} epochs" in page.words
    assert f"{len(ended) * EPOCHS - trained} epochs ({saved.share * 100:.0f} %) saved" in page.words


def test_time_and_cost_hide_nothing(sweep, page):
    spent = facts.spent(sweep, PRICED.price)
    assert spent.held == sum(t.outcome.seconds for t in sweep.trials)
    assert spent.repeats == sum(t.outcome.seconds for t in sweep.trials[16:])
    assert spent.cost == pytest.approx(spent.held / 3600 * 0.8)
    assert (spent.first, spent.running) == (BEGAN, 1)
    assert f"= {spent.held / 3600:.4f} hours held × 0.8 EUR per hour" in page.words
    assert f"CPU-hours{spent.held / 3600:.4f} = " in page.words
    assert "GPU-hours" not in page.words
    assert "1 unfinished trial, whose time is not recorded yet" in page.words


def test_hours_of_gpus_are_counted_where_there_are_any(sweep):
    config = {**sweep.config, "workers_per_trial": 2, "cpus_per_trial": 4.0, "gpus_per_trial": 0.5}
    files = write_report([dataclasses.replace(sweep, config=config)], FRAME)
    hours = sum(t.outcome.seconds for t in sweep.trials) / 3600
    rows = pyarrow.parquet.read_table(io.BytesIO(files["trials.parquet"])).to_pylist()
    assert sum(row["gpu_hours"] or 0 for row in rows) == pytest.approx(hours / 2)
    assert sum(row["cpu_hours"] or 0 for row in rows) == pytest.approx(hours * 4)
    assert {row["currency"] for row in rows} == {None}
    page = Page(files["report.html"])
    assert f"GPU-hours{hours / 2:.4f} = {hours:.4f} hours held × 0.5" in page.words
    assert "2 workers, 4 CPUs, 0.5 GPU" in page.words
    heads = next(row for row in page.rows if row and row[0] == "trial" and "GPU-hours" in row)
    cell = page.row("2")[heads.index("GPU-hours")]
    assert float(cell) == pytest.approx(sweep.trials[2].outcome.seconds / 7200, abs=5e-5)


PRICES = {
    "2.50": Price(amount=2.5),
    0.8: Price(amount=0.8),
    "2.50EUR": Price(amount=2.5, currency="EUR"),
    " 1e-1 usd ": Price(amount=0.1, currency="USD"),
}


@pytest.mark.parametrize(("given", "price"), PRICES.items())
def test_a_price_may_name_its_currency(given, price):
    assert price_of(given) == price


def test_the_front_is_what_no_other_trial_beats_in_both(sweep, page):
    finished = [t for t in facts.search_trials(sweep) if t.outcome.state == FINISHED]

    def beats(one: Trial, other: Trial) -> bool:
        return (
            one.outcome.train_seconds <= other.outcome.train_seconds
            and merit(one.outcome)[0] > merit(other.outcome)[0]
        )

    unbeaten = {t.plan.number for t in finished if not any(beats(o, t) for o in finished)}
    front = facts.front(sweep)
    assert {trial.plan.number for trial in front} == unbeaten == {0, 2}
    assert page.row("2", 0)[2:] == [f"98.67{THIN}%", "2:26"]
    near = facts.near_best(front)
    assert near.plan.number == 0
    assert "Trial 0 is the fastest within 0.1 points" in page.words
    assert "drawn where they were stopped, hollow" in page.words


def test_what_was_stopped_is_never_on_the_front(sweep):
    """Though it was the best and the fastest."""
    best, *others = sweep.trials
    rows = tuple(dataclasses.replace(row, val_accuracy=1.0) for row in best.outcome.history[:1])
    stopped = dataclasses.replace(best.outcome, state=STOPPED, history=rows)
    spoilt = dataclasses.replace(
        sweep, trials=(dataclasses.replace(best, outcome=stopped), *others)
    )
    assert 0 not in {trial.plan.number for trial in facts.front(spoilt)}


def test_epsilon_squared_is_that_of_kruskal_and_wallis():
    # H = 12 / 42 * (36 / 3 + 225 / 3) - 21 = 27 / 7; (H - 1) / 4; 2 of 20 splits are as good.
    share, chance = epsilon_squared([0, 0, 0, 1, 1, 1], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert share == pytest.approx((27 / 7 - 1) / 4)
    assert chance == pytest.approx(0.1)
    assert epsilon_squared([0, 1, 0, 1], [5.0, 5.0, 5.0, 5.0]) == (0.0, 1.0)


def test_a_value_that_one_trial_had_is_a_group():
    share, chance = epsilon_squared(
        [0] * 5 + [1] * 4 + [2], [90, 91, 92, 93, 94, 50, 51, 52, 53, 70]
    )
    # Ranks 6 to 10, 1 to 4 and 5: H = 12 / 110 * (40² / 5 + 10² / 4 + 5²) - 33; (H - 2) / 7. Six in
    # a hundred thousand of 1,260 arrangements would be as good; 2,000 are tried.
    assert share == pytest.approx(0.766, abs=0.001)
    assert chance < 0.01


def test_importance_finds_what_mattered_and_doubts_the_rest():
    accuracies = [0.9 + 0.01 * (i % 2) + 0.0001 * i for i in range(20)]
    parameters = [
        Parameter(name="noise", values=tuple((i // 2) % 2 for i in range(20))),
        Parameter(name="cause", values=tuple("ab"[i % 2] for i in range(20))),
        Parameter(name="rare", values=(*range(7), *(None,) * 13)),
    ]
    cause, noise, rare = importances(parameters, accuracies)
    assert (cause.name, cause.best, cause.is_clear) == ("cause", "b", True)
    assert cause.share > 0.7
    assert not noise.is_clear
    assert (rare.share, rare.trials) == (None, 7)
    assert str(MIN_TRIALS) in rare.problem


def test_a_conditional_parameter_counts_by_its_place_in_its_range(sweep):
    trials = facts.search_trials(sweep)
    found = {p.name: p for p in drawn_parameters(sweep, trials)}
    places = found["learning_rate, within its range"].values
    assert places == pytest.approx([place for _, _, place, _, _ in TRIALS])
    assert len(found["learning_rate [optimizer=adam]"].present) == 8


def test_a_heat_map_has_round_edges():
    values = (0.0012, 0.004, 0.011, None, 0.07, 0.0031, 0.2)
    bins = binned(Parameter(name="rate", values=values))
    assert bins.labels == ("0.001–0.003", "0.003–0.01", "0.01–0.03", "0.03–0.1", "0.1–0.3", "–")
    assert bins.places == (0, 1, 2, 5, 3, 1, 4)
    linear = binned(Parameter(name="decay", values=(0.0, 0.1, 0.25, 0.3, 0.45, 0.5)))
    assert linear.labels == ("0–0.1", "0.1–0.2", "0.2–0.3", "0.3–0.4", "0.4–0.5")
    assert linear.places == (0, 1, 2, 3, 4, 4)


SPACES = {
    "nothing searched": [{}] * 4,
    "one value": [{"model": "lenet5"}] * 3,
    "one choice": [{"precision": p} for p in ("float32", "mixed_bfloat16")],
    "one number": [{"weight_decay": w / 10} for w in range(9)],
    "conditional": [{"optimizer": "sgd"}, {"optimizer": "adam", "learning_rate": 0.01}],
    "kinds mixed": [{"patience": None}, {"patience": 3}, {"patience": "x"}, {"patience": [1, "2"]}],
    "names of columns": [{"state": "a", "trial": 1, "key": 2.5}, {"state": "b", "trial": 2}],
    "many": [{f"setting_{i}": i * j for i in range(14)} for j in range(9)],
    "narrow range": [{"learning_rate": 0.01 + i * 1e-5} for i in range(7)],
    "the same to four figures": [{"learning_rate": 0.01 + i * 1e-9} for i in range(7)],
}


@pytest.mark.parametrize("settings", SPACES.values(), ids=SPACES)
@pytest.mark.parametrize("state", [FINISHED, STOPPED])
def test_any_space_makes_a_report(settings, state):
    whole = realistic_sweep().trials[0].outcome
    short = dataclasses.replace(
        whole, state=state, history=whole.history[: 1 if state == STOPPED else 9]
    )
    trials = tuple(
        Trial(plan=Plan(number=i, settings=each, seed=1), outcome=short)
        for i, each in enumerate(settings)
    )
    sweep = realistic_sweep(ended=False, trials=trials, space={})
    files = write_report([sweep], FRAME)
    drawn = data_of(files["report.html"])["charts"]
    for chart in drawn:
        vl_convert.vegalite_to_vega(chart["spec"])
    names = {chart["name"] for chart in drawn}
    shown = [{name: plain(value) for name, value in each.items()} for each in settings]
    varies = any(each != shown[0] for each in shown)
    assert names >= {"curve-val_accuracy", "curve-val_loss", "times"}
    assert {"parallel", "heat-0"} <= names if varies else not {"parallel", "heat-0"} & names
    rows = pyarrow.parquet.read_table(io.BytesIO(files["trials.parquet"])).to_pylist()
    assert [row["trial"] for row in rows] == list(range(len(settings)))


def test_hostile_texts_stay_texts(files):
    content = write_report([hostile_sweep()], FRAME)["report.html"]
    tame, wild = Page(files["report.html"]), Page(content)

    def foreign(page: Page) -> set:
        return {tag for tag, _ in page.tags}

    assert foreign(wild) <= foreign(tame)
    assert [t for t, _ in wild.tags].count("script") == [t for t, _ in tame.tags].count("script")
    assert not [a for _, attributes in wild.tags for a in attributes if a.startswith("on")]
    for text in HOSTILE[:4]:
        assert " ".join(text.split()) in wild.words
    assert "\u2028" not in embedded(HOSTILE)
    assert not set("<>&") & set(embedded(HOSTILE))
    assert json.loads(embedded(HOSTILE)) == list(HOSTILE)


def test_the_policy_allows_what_is_there_and_nothing_else(files):
    content = files["report.html"].decode()
    policy = next(
        a["content"] for t, a in Page(content.encode()).tags if a.get("http-equiv") is not None
    )
    scripts = re.findall(r'<script type="module">(.*?)</script>', content, re.S)
    style = re.search(r"<style>(.*?)</style>", content, re.S)[1]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'"
        for part in (*scripts, style)
    ]
    assert set(re.findall(r"'sha256-[^']*'", policy)) == set(hashes)
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert len(content) < 1_050_000


@pytest.mark.parametrize(("epochs", "marked"), [(2, [1, 2]), (3, [1, 2, 3]), (40, None)])
def test_few_epochs_are_marked_as_whole_numbers(epochs, marked):
    """Vega also marks halves, which read `1 2 2`."""
    points = [(epoch, 0.9) for epoch in range(1, epochs + 1)]
    spec = json.dumps(curves([Line(key="0", look="best", points=points)], is_accuracy=True))
    assert (f'"values": {marked}' in spec) == (marked is not None)
    assert ("tickMinStep" in spec) == (marked is None)


def test_a_run_is_reported(place):
    keep_run(place, "mine", quality=0.9)
    written = report(["mine"], price_per_hour=None)
    assert written[0] == "report-mine/report.html"
    shown = Page((place.root.parent / written[0]).read_bytes())
    history = pyarrow.csv.read_csv("report-mine/epochs.csv").to_pylist()
    assert len(history) == 4
    for row in history:
        cells = [cell for cell in shown.rows if cell and cell[0].split()[0] == str(row["epoch"])]
        assert cells[0][4] == f"{row['val_accuracy'] * 100:.2f}{THIN}%"
    assert "lenet train --model lenet5 --recipe quick --epochs 4" in shown.words
    # Or who sees validation above training would look for a fault.
    assert "Loss (in training against smoothed labels and on augmented images)" in shown.words
    assert "Accuracy (in training on augmented images)" in shown.words
    assert report(["runs/mine"], out="elsewhere/deep")[1] == "elsewhere/deep/runs.csv"


def test_an_unfinished_run_can_be_continued(place):
    keep_run(place, "cut", epochs=2, ended=False)
    report(["cut"])
    shown = Page((place.root.parent / "report-cut/report.html").read_bytes()).words
    assert "not known yet" in shown
    assert "lenet train --name cut" in shown


def test_runs_that_differ_by_the_seed_are_one_setting(place):
    for seed in (1, 2, 3):
        keep_run(place, f"seed-{seed}", quality=0.85 + seed / 50, seed=seed)
    keep_run(place, "adam", quality=0.7, optimizer="adam", learning_rate=0.001)
    keep(place.at("s1"), realistic_sweep(name="s1"))
    report(["seed-1", "seed-2", "seed-3", "adam", "s1"], out="out")
    rows = pyarrow.parquet.read_table("out/runs.parquet").to_pylist()
    assert len(rows) == 7
    mine = [row["test_accuracy"] for row in rows if row["run"].startswith("seed-")]
    page = Page((place.root.parent / "out/report.html").read_bytes())
    row = page.row("seed-1, seed-2, seed-3")
    mean, deviation = statistics.fmean(mine) * 100, statistics.stdev(mine) * 100
    assert f"{mean:.2f} ± {deviation:.2f}{THIN}%" in row
    assert "3" in row
    winner = page.row("s1/0002, s1/0016, s1/0017")
    assert f"99.21 ± 0.05{THIN}%" in winner
    assert page.row("adam", 0)[1:5] == ["4", "128", "adam", "0.001"]


def test_groups_are_sorted_and_keep_unequal_settings_apart(place):
    from job.runs.run import open_run
    from tuning.report.runs import record_of_run

    keep_run(place, "good", quality=0.9, seed=2)
    keep_run(place, "bad", quality=0.3, batch_size=64)
    groups = ranked([record_of_run(open_run(name)) for name in ("bad", "good")])
    assert [group.first.name for group in groups] == ["good", "bad"]


def test_what_compares_in_one_command_compares_in_the_other(place, tmp_path):
    """The same settings by another recipe are one model; data of one name may be two sets."""
    keep_run(place, "a", seed=1)
    spelled = {k: v for k, v in resolve({"name": "a"}).fixed_dict().items() if k != "recipe"}
    keep_run(place, "b", **{**spelled, "seed": 2, "recipe": "notebook"})
    report(["a", "b"], out="out")
    shown = Page((tmp_path / "out/report.html").read_bytes())
    assert shown.row("a, b")[1] == "1, 2"
    mnist = CATALOGUE["mnist"]
    others = dataclasses.replace(mnist, files=CATALOGUE["fashion-mnist"].files)
    keep_dataset(place.at("b"), others)
    with pytest.raises(InputError, match="was trained on mnist, but a on another mnist"):
        report(["a", "b"])


def bad_sweep(**changed) -> Sweep:
    return realistic_sweep(ended=False, name="s1", **changed)


def without_epochs() -> Sweep:
    trials = realistic_sweep(ended=False).trials
    return bad_sweep(trials=tuple(dataclasses.replace(t, outcome=Outcome()) for t in trials))


ERRORS = {
    "no name": ([], {}, "NAME: name a sweep or a run"),
    "unknown": (["nowhere"], {}, "NAME 'nowhere': no sweep and no run in runs/nowhere"),
    "a name like a path": (["..%"], {}, "NAME '..%': use 1 to 100 letters"),
    "an empty folder": (["runs/empty"], {}, "no sweep and no run in runs/empty"),
    "a foreign folder": (["foreign"], {}, "runs/foreign holds neither a sweep nor a run"),
    "a broken sweep": (["broken"], {}, "sweep.json is not what a sweep writes"),
    "a winner from nowhere": (["astray"], {}, "its winner is none of its trials"),
    "no epoch": (["fresh"], {}, "has no trial with a finished epoch yet"),
    "a run without an epoch": (["young"], {}, "has no finished epoch yet"),
    "one name twice": (["run", "run"], {}, "is named twice"),
    "one place twice": (["run", "runs/run"], {}, "is named twice"),
    "a sweep without a winner": (["run", "going"], {}, "has no winner yet"),
    "other data": (["run", "fashion"], {}, "was trained on fashion-mnist, but run on mnist"),
    "a bad price": (
        ["run"],
        {"price_per_hour": "cheap"},
        "--price-per-hour 'cheap': not a number; give",
    ),
    "a bad currency": (["run"], {"price_per_hour": "$2"}, "give a price such as 2.50 or 2.50EUR"),
    "a negative price": (["run"], {"price_per_hour": -1}, "must be at least 0"),
    "a file in the way": (["run"], {"out": "file"}, "--out 'file': can't be written (File exists)"),
}


@pytest.mark.parametrize(("names", "options", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_are_one_line_and_write_nothing(place, names, options, message):
    keep_run(place, "run")
    keep_run(place, "young", epochs=0)
    keep_run(place, "fashion", dataset="fashion-mnist")
    keep(place.at("going"), bad_sweep())
    keep(place.at("fresh"), without_epochs())
    winner = dataclasses.replace(realistic_sweep().winner, trial=99)
    keep(place.at("astray"), bad_sweep(winner=winner))
    place.write("broken/sweep.json", b'{"name": 1}')
    place.write("foreign/notes.txt", b"mine")
    place.root.joinpath("empty").mkdir()
    root = place.root.parent
    root.joinpath("file").write_text("mine")
    before = sorted(map(str, root.rglob("*")))
    with pytest.raises(InputError) as raised:
        report(names, **options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert sorted(map(str, root.rglob("*"))) == before


def test_the_report_needs_no_framework():
    code = "import sys, tuning.report.command; print({'tensorflow', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
