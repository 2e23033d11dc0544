"""The table of all comparisons says who is ahead and whether goals hold, of whatever is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import bench, comparisons, summary
from benchmarks.kit import paired
from benchmarks.speed import startup
from benchmarks.summary import NOT_MEASURED, Comparison, Goal

ROWS = tuple(comparisons.comparisons())


def row(lower: bool = False, **settings: Any) -> Comparison:
    return Comparison(
        **{"part": "a", "what": "speed, images/s", "peer": "Peer", "document": "d"},
        find=comparisons.among(model="m"),
        lower=lower,
        **settings,
    )


def document(*pairs: tuple[float, float], **extra: Any) -> dict[str, dict[str, Any]]:
    rows = [{"model": "other", "pairs": [[1, 1]]}, {"model": "m", "pairs": pairs, **extra}]
    return {"d": {"date": "2026-01-01", "device": "cpu", "rows": rows}}


def cells(text: str) -> list[str]:
    """The cells of the first row of a table."""
    return [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]


def test_a_row_shows_medians_the_spread_and_both_accuracies():
    kept = document((30, 10), (20, 10), (50, 20), accuracy=[0.991, 0.99])
    part, what, ours, peer, its, ratio, n, accuracy, ahead, goal, holds = cells(
        summary.table([row()], kept)
    )
    assert (part, what, ours, peer, its, n) == ("a", "speed, images/s", "30", "Peer", "10", "3")
    assert ratio == "**2.50 ×** (2.00–3.00)"
    assert accuracy == "99.10 %, 99.00 %"
    assert (ahead, goal, holds) == ("ours", "ahead", "yes")


@pytest.mark.parametrize(("lower", "pair"), [(False, (9, 10)), (True, (10, 9))])
def test_a_peer_that_is_ahead_is_shown_as_such(lower, pair):
    table = cells(summary.table([row(lower)], document(pair)))
    assert table[8] == "**peer**"
    assert table[10] == "**no**"
    short = summary.short_table([row(lower)], document(pair))
    assert short.endswith("a peer is ahead in 1: speed (Peer).")
    assert cells(summary.table([row(lower)], document(pair[::-1])))[8] == "ours"
    assert summary.short_table([row(lower)], document(pair[::-1])).endswith("ahead in none.")


@pytest.mark.parametrize(
    ("goal", "pairs", "holds"),
    [
        (Goal(least=2), [(2, 1), (5, 1), (1, 1)], True),
        (Goal(least=2), [(1.9, 1)], False),
        (Goal(most=0.5), [(1, 2)], True),
        (Goal(most=0.5), [(1.1, 2)], False),
        (Goal(more=3), [(12, 10), (13, 10), (20, 10)], True),
        (Goal(more=3), [(13.1, 10)], False),
        (Goal(ours=0.3), [(0.3, 0.01)], True),
        (Goal(ours=0.3), [(0.31, 0.3)], False),
    ],
)
def test_a_goal_is_judged_by_medians(goal, pairs, holds):
    lower = goal.least is None
    said = cells(summary.short_table([row(lower, goal=goal)], document(*pairs)))
    assert said[4:] == [str(goal), "yes" if holds else "**no**"]


def test_a_goal_that_holds_hides_no_peer_that_is_ahead():
    text = summary.table([row(True, goal=Goal(more=3))], document((12, 10)))
    assert cells(text)[8:] == ["**peer**", "≤ peer + 3", "yes"]


def test_nobody_is_ahead_of_a_bound():
    text = summary.table([row(is_rival=False, goal=Goal(least=0.5))], document((6, 10)))
    assert cells(text)[8:] == ["", "≥ 0.5 ×", "yes"]
    assert cells(summary.table([row(is_rival=False)], document((6, 10))))[8:] == ["", "", ""]


@pytest.mark.parametrize("kept", [{}, document()], ids=["no file", "no such figures"])
def test_what_is_not_kept_is_not_measured(kept):
    assert cells(summary.table([row()], kept))[2] == NOT_MEASURED
    given = row(goal=Goal(least=1))
    assert cells(summary.short_table([given], kept))[1] == NOT_MEASURED
    assert "Of 0 rows measured" in summary.short_table([given], kept)


def test_all_rows_are_there_without_any_result(tmp_path):
    assert summary.kept(ROWS, tmp_path) == {}
    assert summary.table(ROWS, {}).count(NOT_MEASURED) == len(ROWS)


def test_every_row_finds_its_figures_in_what_is_kept():
    kept = summary.kept(ROWS)
    missing = [
        (one.document, one.what, one.peer)
        for one in ROWS
        # PyTorch for CPUs is not to be had everywhere.
        if one.document in kept and "PyTorch" not in one.peer
        if not summary.found_in(kept, one).pairs
    ]
    assert not missing


def test_a_sweeps_peers_are_the_first_of_their_pairs():
    find = comparisons.among(against="x", flip=True)
    assert find({"rows": [{"against": "x", "pairs": [[60, 40]]}]}).pairs == ((40, 60),)


def test_times_to_an_accuracy_come_with_the_mean_over_all_seeds():
    seeds = [
        {"ours": {"test_accuracy": 0.99}, "keras": {"test_accuracy": 0.98}},
        {"ours": {"test_accuracy": 1.0}, "keras": {"test_accuracy": 0.99}},
    ]
    row = {"quantity": "wanted_seconds", "peer": "keras", "pairs": [[50, 90]]}
    found = comparisons.to_accuracy("wanted_seconds", "keras")({"rows": [row], "seeds": seeds})
    assert found.pairs == ((50, 90),)
    assert found.accuracy == pytest.approx((0.995, 0.985))


def test_an_interrupted_measurement_goes_on_with_its_next_round(tmp_path, monkeypatch):
    monkeypatch.setattr(paired, "UNFINISHED", tmp_path)
    measured = []

    def measure(number: int) -> dict[str, int]:
        if number == 2 and len(measured) == 2:
            raise KeyboardInterrupt
        measured.append(number)
        return {"round": number}

    with pytest.raises(KeyboardInterrupt):
        paired.kept_rounds("r", 4, measure)
    measured.append(-1)
    assert paired.kept_rounds("r", 4, measure) == [{"round": n} for n in range(4)]
    assert measured == [0, 1, -1, 2, 3]
    paired.keep({"rows": 4}, tmp_path / "results" / "r.json", "r")
    assert json.loads((tmp_path / "results" / "r.json").read_text()) == {"rows": 4}
    assert paired.kept_rounds("r", 1, lambda number: {"round": 9}) == [{"round": 9}]


def test_rounds_of_other_code_are_not_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(paired, "UNFINISHED", tmp_path)
    monkeypatch.setattr(paired, "ROOT", tmp_path)
    (tmp_path / "job").mkdir()
    assert paired.kept_rounds("r", 1, lambda number: {"code": "old"}) == [{"code": "old"}]
    (tmp_path / "job" / "engine.py").write_text("faster = True")
    assert paired.kept_rounds("r", 1, lambda number: {"code": "new"}) == [{"code": "new"}]


def test_make_bench_goes_on_with_the_part_that_was_interrupted(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "UNFINISHED", tmp_path)
    monkeypatch.setattr(paired, "UNFINISHED", tmp_path)
    log = tmp_path / "log"
    parts = {name: tmp_path / f"{name}.py" for name in ("one", "two", "three")}
    for name, path in parts.items():
        path.write_text(
            f"import pathlib, sys\nlog = pathlib.Path({str(log)!r})\n"
            f"log.open('a').write('{name} ')\n"
            f"sys.exit('{name}' == 'two' and log.read_text().count('two') == 1)\n"
        )
    monkeypatch.setattr(bench, "PARTS", {name: [str(path)] for name, path in parts.items()})
    with pytest.raises(subprocess.CalledProcessError):
        bench.measure([])
    bench.measure([])
    assert log.read_text().split() == ["one", "two", "two", "three"]
    bench.measure(["three"])
    bench.measure([])
    # Whoever names a part wants its figures, not the whole from there on.
    assert log.read_text().split()[4:] == ["three", "one", "two", "three"]


def test_the_first_step_is_seen_on_both_sides():
    assert startup.lenet_step("--limit-train", "500", "--batch-size", "50") > 0
    assert startup.keras_step() > 0


def test_help_imports_nothing_heavy():
    heavy = "{'tensorflow', 'keras', 'ray', 'sklearn', 'scipy', 'matplotlib', 'pyarrow', 'rich'}"
    script = (
        "import sys\n"
        "from tuning.cli import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        f"print(sorted({heavy} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
