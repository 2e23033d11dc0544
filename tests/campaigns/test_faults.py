"""The fault campaign in its short form, and in the long form a training run through such faults.
`make faults` runs a longer one; its figures are in docs/storage.md."""

from __future__ import annotations

import pytest

from tests.campaigns.faults import HOLD_SECONDS, campaign, report
from tests.kit.commands import SMOKE, result_of
from tests.kit.fault_proxy import Chance, FaultProxy
from tests.test_storage.test_s3_runs import OFTEN, result


def test_nothing_acknowledged_is_lost_and_nothing_wrong_is_restored(full):
    outcome = campaign(faults=1000 if full else 50, seed=11)
    print(report(outcome))
    counts = outcome["counts"]
    assert counts["wrong restores"] == 0
    assert counts["lost commits"] == 0
    assert counts["deaths of the client"] > 0
    assert counts["saves"] > 12


@pytest.mark.long
def test_a_run_through_faults_ends_with_the_same_weights(lenet, s3, store, tmp_path, finished_run):
    with FaultProxy(store.endpoint, Chance(seed=3, rate=0.35)) as proxy:
        proxy.hold = HOLD_SECONDS
        done = lenet(
            *("train", *SMOKE, *OFTEN, "--name", "r", "--storage", s3),
            cwd=tmp_path,
            **store.env(proxy.endpoint),
        )
        assert done.returncode == 0, done.stderr
        assert sum(proxy.injected.values()) > 20
    assert result(s3)["weights_sha256"] == result_of(finished_run)["weights_sha256"]
