"""What tests ask of the lines of `lenet doctor`."""

from __future__ import annotations

from cluster.doctor.findings import OK, Finding


def only(findings: list[Finding], status: str, *said: str) -> Finding:
    """The one finding there is, which says all that."""
    (finding,) = findings
    assert finding.status == status, finding
    for text in said:
        assert text in str(finding)
    assert bool(finding.fix) == (status != OK), finding
    return finding
