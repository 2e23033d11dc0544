"""The kill campaign in its short form: three faults, or with --full each kind once. `make chaos`
runs the long one; its figures are in docs/studies/workers.md."""

import pytest

from tests.campaigns.chaos import AGAIN, FAULTS, campaign, complaints, table

pytestmark = pytest.mark.minutes


def test_killed_anywhere_a_run_ends_with_the_same_weights(full):
    if full:
        outcome = campaign(faults=len(FAULTS) + 3, seed=7)
    else:
        outcome = campaign(faults=3, seed=7, epochs=2)
    print(table(outcome["records"]))
    assert list(complaints(outcome)) == []
    if full:
        assert {record["fault"] for record in outcome["records"]} == {*FAULTS, AGAIN}
