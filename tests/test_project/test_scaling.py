"""The model of a step's time: what it is made of, and that it fits what was measured."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics

import pytest

from benchmarks.gpu.parts import Rate
from benchmarks.gpu.table import NOT_MEASURED
from benchmarks.scaling import hosts as scaling_hosts
from benchmarks.scaling import model as scaling_model
from benchmarks.scaling import paper as scaling_paper
from benchmarks.scaling import relay as scaling_relay
from benchmarks.scaling import scaling
from benchmarks.scaling import tables as scaling_tables
from benchmarks.scaling.model import BYTES, EMPTY, MODELS, Setting, predict
from benchmarks.scaling.paper import Machines
from job.errors import InputError
from tests.kit.doc_commands import ROOT

PROCESSORS = 2
KNOWN = {
    "step lenet5": 2e-3,
    "image lenet5": 3e-4,
    "step ffnn": 1e-3,
    "image ffnn": 6e-5,
    "hop": 2.0,
    "message": 4e-4,
    "wire": 1.0,
    "byte": 3e-9,
    "window": 4e-6,
    "relayed byte": 1e-9,
    "processors": 1.6,
}
FOUR = Setting(model="lenet5", workers=4, batch=64, latency=1e-3, bandwidth=125e6)
MACHINES = Machines(
    name="any",
    images_per_second=1000.0,
    step=1e-3,
    message=1e-4,
    byte=1e-9,
    hop=1.0,
    window=0.0,
    latency=2e-5,
    bandwidth=1.25e9,
)


@pytest.fixture(scope="module")
def kept() -> dict:
    return scaling_tables.document()


def seconds(setting: Setting, **changes: object) -> float:
    return predict(dataclasses.replace(setting, **changes), KNOWN)


def test_a_step_is_the_sum_that_theory_says():
    # Six messages of a quarter of the model, one after another; 1.6 processors for four workers.
    share = 4 / 1.6
    computing = share * (2e-3 + 16 * 3e-4)
    messages = 6 * (2.0 * 1e-3 + share * 4e-4)
    byte = 1 / 125e6 + 4e-6 * 1e-3 + share * 3e-9
    assert seconds(FOUR) == pytest.approx(
        computing + messages + 6 * BYTES["lenet5"] / 4 * byte, rel=1e-12
    )


def test_one_worker_has_no_network():
    alone = dataclasses.replace(FOUR, workers=1)
    assert seconds(alone) == seconds(alone, latency=1.0, bandwidth=1.0, relayed=True)
    assert seconds(alone) == pytest.approx(2e-3 + 64 * 3e-4)


def test_an_empty_step_is_its_messages():
    empty = Setting(model=EMPTY, workers=4, batch=4, latency=1e-3)
    assert seconds(empty) == pytest.approx(6 * (2.0 * 1e-3 + 2.5 * 4e-4), rel=1e-4)


@pytest.mark.parametrize("workers", [2, 3, 64])
def test_a_worse_network_takes_longer(workers):
    setting = dataclasses.replace(FOUR, workers=workers)
    for name, values in {
        "latency": (0.0, 1e-5, 1e-3, 5e-3),
        "bandwidth": (None, 1e10, 125e6, 12.5e6),
        "relayed": (False, True),
    }.items():
        times = [seconds(setting, **{name: value}) for value in values]
        assert all(a < b for a, b in itertools.pairwise(times)), name


def test_more_bytes_take_longer(monkeypatch):
    before = seconds(FOUR)
    monkeypatch.setitem(BYTES, "lenet5", 2 * BYTES["lenet5"])
    assert seconds(FOUR) > before


def test_what_is_summed_is_the_models_parameters():
    runs = json.loads((ROOT / "docs" / "results" / "notebook.json").read_text())["runs"]
    parameters = {run["setting"]: run["parameters"] for run in runs}
    assert {model: 4 * parameters[model] for model in MODELS} == MODELS


def test_the_fit_finds_the_coefficients_that_made_the_points():
    points = [(setting, predict(setting, KNOWN)) for setting in scaling.design()]
    assert scaling_model.fit(points, PROCESSORS) == pytest.approx(KNOWN, rel=1e-4)


def test_points_that_leave_a_coefficient_open_are_refused():
    few = [s for s in scaling.design() if s.bandwidth is None]
    points = [(setting, predict(setting, KNOWN)) for setting in few]
    with pytest.raises(InputError, match=r"points '\d+': do not tell wire apart; measure more"):
        scaling_model.fit(points, PROCESSORS)


def test_figures_are_final_only_where_all_was_measured_and_nothing_disturbed_it(kept):
    """Otherwise the table says so."""
    planned = [scaling.setting_as_planned(point) for point in kept["points"]]
    design = list(scaling.design())
    assert planned == [setting for setting in design if setting in planned]
    quiet = all(point.get("others", 2.0) <= scaling_model.QUIET for point in kept["points"])
    is_final = planned == design and quiet
    assert ("Provisional" not in scaling_tables.fit_table()) == is_final


def test_what_is_final_is_told_from_what_is_not(kept):
    points = [{**point, "others": 0.1} for point in kept["points"]]
    final = {**kept, "planned": len(points), "points": points}
    assert scaling_tables.provisional(final) == ""
    assert "1 of" in scaling_tables.provisional({**final, "planned": len(points) + 1})
    loud = {**points[0], "others": 0.2}
    assert "beside 1 others" in scaling_tables.provisional({**final, "points": [loud, *points[1:]]})


def test_a_gpu_is_carried_on_as_measured(tmp_path):
    """Rates of 0.5 ms a step and 2 µs an image; without all of them it is an estimate."""
    batches = [32, 512, 4096]
    rates = {
        Rate("lenet5", batch, has_xla=False).key: {
            "images_per_second": batch / (0.5e-3 + 2e-6 * batch)
        }
        for batch in batches
    }
    kept = tmp_path / "gpu.json"
    assert scaling_tables.gpu(kept) == (scaling_tables.ESTIMATED, "estimated")
    rows = {"device": {"device": "NVIDIA L4"}, **rates}
    kept.write_text(json.dumps({"batches": batches, "rows": rows}))
    found, where = scaling_tables.gpu(kept)
    assert found == pytest.approx({"step": 0.5e-3, "images_per_second": 500_000})
    assert where == "as measured on one NVIDIA L4, without XLA"
    rows[Rate("lenet5", 32, has_xla=False).key] = {NOT_MEASURED: "out of time"}
    kept.write_text(json.dumps({"batches": batches, "rows": rows}))
    assert scaling_tables.gpu(kept) == (scaling_tables.ESTIMATED, "estimated")


def test_nothing_is_measured_beside_other_programs():
    scaling_hosts.check_quiet(0.1)
    with pytest.raises(InputError, match=r"others '1.9': processors are used by other programs"):
        scaling_hosts.check_quiet(1.9)


def test_the_network_was_as_slow_as_it_should_be(kept):
    late = [
        point["round_trip"] - 2 * point["latency"]
        for point in kept["points"]
        if point["workers"] > 1
    ]
    assert min(late) >= 0
    assert statistics.median(late) < 0.5e-3


def test_the_stated_errors_are_those_of_points_held_out(kept):
    fitting, held_out = scaling_model.divided(scaling_model.observed(kept["points"]))
    assert len(held_out) == round(len(kept["points"]) / 3)
    assert not [point for point in held_out if point in fitting]
    coefficients = scaling_model.fit(fitting, kept["processors"])
    assert coefficients == pytest.approx(kept["coefficients"], rel=1e-3)
    sizes = sorted(abs(predict(setting, coefficients) - t) / t for setting, t in held_out)
    assert kept["held_out_errors"]["worst"] == pytest.approx(sizes[-1], rel=1e-3)
    middle = (sizes[(len(sizes) - 1) // 2] + sizes[len(sizes) // 2]) / 2
    assert kept["held_out_errors"]["median"] == pytest.approx(middle, rel=1e-3)


def test_strong_scaling_ends_where_another_worker_makes_a_step_slower():
    end = scaling_paper.end_of_strong_scaling(MACHINES, "lenet5", 256)
    times = {
        workers: scaling_paper.step_seconds(MACHINES, "lenet5", workers, 256)
        for workers in range(1, 257)
    }
    assert 1 < end.workers < 256
    assert end.seconds == min(times.values())
    assert end.speedup == pytest.approx(times[1] / times[end.workers])


@pytest.mark.parametrize("workers", [2, 8, 1024])
@pytest.mark.parametrize("efficiency", [0.5, 0.8, 0.95])
def test_the_least_share_is_just_enough(workers, efficiency):
    share = scaling_paper.least_share(MACHINES, "lenet5", workers, efficiency)
    assert share > 1
    enough = scaling_paper.weak(MACHINES, "lenet5", workers, share)
    too_few = scaling_paper.weak(MACHINES, "lenet5", workers, share - 1)
    assert too_few.efficiency < efficiency <= enough.efficiency


def test_an_epochs_cost_is_the_inverse_of_the_efficiency():
    many, one = (scaling_paper.strong(MACHINES, "lenet5", n, 512) for n in (16, 1))
    assert many.worker_hours / one.worker_hours == pytest.approx(1 / many.efficiency)
    assert one.worker_hours == pytest.approx(math.ceil(48_000 / 512) * one.seconds / 3600)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"workers": 0}, "workers '0': must be 1 or more"),
        ({"batch": 3}, "batch '3': must be 4 or more: one a worker"),
        ({"latency": -1.0}, "latency '-1.0': must be 0 or more seconds"),
        ({"bandwidth": 0.0}, "bandwidth '0.0': must be above 0 bytes per second"),
        ({"model": "resnet"}, "model 'resnet': choose one of lenet5, ffnn, empty"),
    ],
)
def test_settings_that_make_no_sense_are_named(changes, message):
    with pytest.raises(InputError) as caught:
        dataclasses.replace(FOUR, **changes)
    assert str(caught.value) == message


PREDICT = "predict --workers 8 64 1024 --batch 4096 --latency 20 --bandwidth 100"


def test_predict_answers_for_each_number_of_workers(capsys):
    scaling.main(PREDICT.split())
    header, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[0] for row in rows] == ["8", "64", "1,024"]
    assert "efficiency" in header
    scaling.main([*PREDICT.split(), "--images-per-second", "0.001"])
    slow = capsys.readouterr().out.splitlines()[1:]
    # Where computing takes forever, workers are worth what they cost.
    assert all(float(row.split()[4]) > 99 for row in slow)


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("--workers 0", "workers '0'"),
        ("--batch 9", "batch '9'"),
        ("--bandwidth -1", "bandwidth '-1.0': must be above 0 Gbit/s"),
        ("--images-per-second 0", "images_per_second '0.0'"),
        ("--hop nan", "hop 'nan'"),
    ],
)
def test_bad_input_ends_with_its_name(more, named, capsys):
    with pytest.raises(SystemExit) as ended:
        scaling.main([*PREDICT.split(), *more.split()])
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def frame(receiver: bytes) -> bytes:
    return bytes(scaling_relay.HEADER) + receiver + bytes(60)


def test_the_relay_passes_a_frame_to_the_host_that_it_is_for():
    taps = {1: 11, 2: 12, 3: 13}
    to_third = bytes([2, 0, 0, 0, 0, 3])
    assert scaling_relay.receivers(frame(to_third), 1, taps) == [13]
    assert scaling_relay.receivers(frame(bytes([2, 0, 0, 0, 0, 9])), 1, taps) == []
    assert scaling_relay.receivers(frame(b"\xff" * 6), 2, taps) == [11, 13]


def test_the_kept_figures_are_plain():
    text = scaling_tables.RESULT.read_text()
    assert "NaN" not in text
    assert all(value >= 0 for value in json.loads(text)["coefficients"].values())
