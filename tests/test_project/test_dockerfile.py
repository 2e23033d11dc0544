"""The image's recipe: pinned, small, without secrets, and not run as root."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.lab.dockerfile import command_of, context, read_stages

ROOT = Path(__file__).parents[2]
LOCKS = ("requirements-cluster.lock", "requirements-gpu.lock")
STAGES = read_stages((ROOT / "Dockerfile").read_text())
STEPS = [step for stage in STAGES for step in stage.steps]


def pins(lock: str) -> set[str]:
    """Package, version and marker, as a lock's lines begin."""
    lines = (ROOT / lock).read_text().splitlines()
    return {line.rstrip("\\ ") for line in lines if re.match(r"[a-z0-9]", line)}


def test_the_base_is_pinned_by_version_and_digest():
    for stage in STAGES:
        assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", stage.base)
    assert len({stage.base for stage in STAGES}) == 1


def test_everything_installed_is_hash_pinned():
    runs = [text for word, text in STEPS if word == "RUN" and "pip install" in text]
    assert len(runs) == 2
    for text in runs:
        assert "--require-hashes" in text or "--no-deps" in text


def test_the_last_word_on_the_user_is_not_root():
    users = [text for word, text in STAGES[-1].steps if word == "USER"]
    assert users == ["1000:1000"]
    after = STAGES[-1].steps[[word for word, _ in STAGES[-1].steps].index("USER") :]
    assert all(word != "RUN" for word, _ in after)


def test_it_says_how_it_is():
    (health,) = [text for word, text in STAGES[-1].steps if word == "HEALTHCHECK"]
    assert command_of(health)[:2] == ["sh", "-c"]


def test_it_fetches_no_url_and_holds_no_secret():
    text = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^(ADD|RUN .*(curl|wget http))", text, re.MULTILINE)
    assert not re.search(r"(?i)(secret|password|token|_key)\s*=", text)


def test_the_context_is_what_is_copied():
    sources = {
        source
        for word, text in STEPS
        if word == "COPY" and "--from" not in text
        for source in text.split()[:-1]
    }
    sent = context(ROOT)
    assert {name.split("/")[0] for name in sent} == sources
    assert not [name for name in sent if "__pycache__" in name or name.endswith(".pyc")]
    assert sum((ROOT / name).stat().st_size for name in sent) < 2_000_000


def test_a_step_that_is_not_understood_is_refused():
    with pytest.raises(ValueError, match="ADD"):
        read_stages("FROM a\nADD x y\n")


def hashed(lock: str) -> dict[str, set[str]]:
    """Versions of each package of a lock, with their hashes; on what machines is left out."""
    text = (ROOT / lock).read_text().replace("\\\n", "")
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        version, *hashes = re.findall(r"==([\w.]+)|(--hash=\S+)", line)
        name = re.match(r"[\w-]+", line)[0]
        found.setdefault(name, set()).add((version[0], *(one for _, one in hashes if one)))
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_agree_with_the_projects_own(lock):
    """So that both can be installed in one environment, as `make venv GPU=1` does."""
    own, others = hashed("requirements.lock"), hashed(lock)
    both = own.keys() & others.keys()
    assert len(both) > 50
    for name in both:
        assert own[name] == others[name]


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_hold_what_the_project_needs(lock):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", name)[0] for name in project["dependencies"]}
    assert needed <= {pin.partition("==")[0] for pin in pins(lock)}


@pytest.mark.parametrize("lock", LOCKS)
def test_locks_name_no_registry(lock):
    assert "://" not in (ROOT / lock).read_text()


def test_only_the_gpu_lock_has_nvidias_libraries():
    cluster, gpu = (pins(lock) for lock in LOCKS)
    assert cluster < gpu
    assert {pin.partition("-")[0] for pin in gpu - cluster} == {"nvidia"}
