"""What is said while something runs, where nobody looks at a terminal."""

from __future__ import annotations

from types import SimpleNamespace

from job.training import progress
from job.training.progress import PlainProgress, SpanReport
from tuning import display
from tuning.display import SweepDisplay

SPAN = SpanReport(
    epoch=1,
    epochs=3,
    step=50,
    steps_per_epoch=375,
    loss=0.5,
    accuracy=0.8,
    images_per_second=3000.0,
    eta_seconds=600.0,
    val_accuracy=None,
)


def test_a_long_epoch_says_where_it_stands_and_a_short_one_does_not(capfd, monkeypatch):
    plain = PlainProgress()
    plain.span(SPAN)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.0)
    plain.span(SPAN)
    assert "step 50/375" in capfd.readouterr().err


def test_so_does_a_sweep(capfd, monkeypatch):
    sweep = SweepDisplay(16, 5)
    sweep.follow(SimpleNamespace(outcomes={}, planned_repeats=0), slots=2)
    assert capfd.readouterr().err == "16 trials of at most 5 epochs, 2 at once\n"
    sweep.refresh()
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.0)
    sweep.refresh()
    assert "0/16 trials    waiting for room on the cluster" in capfd.readouterr().err
    sweep.began(0)
    sweep.refresh()
    assert "0/16 trials    running 1  0 images/s" in capfd.readouterr().err
