"""A named folder is new, continued or finished, and one process holds it: runs, studies, sweeps."""

from __future__ import annotations

import pytest

from job.baselines import study
from job.errors import InputError
from job.runs import run
from job.runs.folder import Folder, Kind, find_folder
from job.storage.disk import LocalStorage
from tuning import sweep

KINDS = {kind.verb: kind for kind in (run.KIND, study.KIND, sweep.KIND)}


@pytest.fixture(params=KINDS)
def kind(request) -> Kind:
    return KINDS[request.param]


def found(kind: Kind, tmp_path, *, overwrite: bool = False) -> Folder:
    return find_folder(kind, "x", str(tmp_path), patience=1, overwrite=overwrite)


def test_of_two_that_found_a_name_free_one_gets_it(kind, tmp_path):
    first, second = found(kind, tmp_path), found(kind, tmp_path)
    with first.claimed({"of": "first"}):
        for other in (second, found(kind, tmp_path)):
            with pytest.raises(InputError, match=rf"process \d+ on .* {kind.busy}"):
                other.check_free()
            with pytest.raises(InputError, match=rf"{kind.busy}; take another name"):
                other.claimed({}).__enter__()
    with pytest.raises(InputError, match="used this name just now"), second.claimed({}):
        pass
    assert b"first" in first.storage.read(kind.mark, limit=99)


def test_a_folder_that_goes_with_rays_copy_of_a_job_is_refused(kind, tmp_path, monkeypatch):
    """`ray job submit --working-dir . -- lenet train`."""
    copy = tmp_path / "runtime_resources/working_dir_files/_ray_pkg_0123456789abcdef"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    with pytest.raises(InputError, match=r"--storage 'runs': .* goes with it; give s3://"):
        find_folder(kind, "x", "runs", patience=1)
    assert find_folder(kind, "x", str(tmp_path / "runs"), patience=1).is_new


def test_what_has_finished_is_not_continued(kind, tmp_path):
    early = found(kind, tmp_path)
    with early.claimed({}):
        pass
    late = found(kind, tmp_path)
    if kind.end is None:
        return
    early.storage.write(kind.end, b"{}")
    with pytest.raises(InputError, match=f"this {kind.noun} has finished; `lenet {kind.shown} x "):
        found(kind, tmp_path)
    with pytest.raises(InputError, match="used this name just now"), late.claimed({}):
        pass


def test_not_even_overwrite_takes_what_is_something_else(kind, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x/todo.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"not empty and holds no {kind.noun}"):
            found(kind, tmp_path, overwrite=overwrite)


@pytest.mark.parametrize(
    ("verb", "order"),
    [
        ("train", ["result.json", "checkpoints", "data.json", "figures", "reached.json"]),
        ("sweep", ["winner.json", "outcomes", "trials", "plans"]),
    ],
)
def test_nothing_is_left_without_what_it_is_known_by(verb, order, tmp_path, monkeypatch):
    with found(KINDS[verb], tmp_path).claimed({"of": "old"}):
        pass
    for name in sorted(order):
        (tmp_path / "x" / name).mkdir()
    delete, deleted = LocalStorage.delete, []
    monkeypatch.setattr(
        LocalStorage, "delete", lambda self, path: (deleted.append(path), delete(self, path))
    )
    with found(KINDS[verb], tmp_path, overwrite=True).claimed({"of": "new"}):
        assert deleted == order


def test_a_replacement_that_is_cut_off_anywhere_leaves_one_to_continue(kind, tmp_path, monkeypatch):
    """And not a finished one whose parts are gone."""
    with found(kind, tmp_path).claimed({"of": "old"}):
        pass
    for name in ("a", "z/z", *filter(None, [kind.end])):
        (tmp_path / "x" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "x" / name).write_text("{}")
    delete, left = LocalStorage.delete, 0

    def dying(self, path):
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        delete(self, path)

    for count in range(2 + bool(kind.end)):
        # Before anything is deleted; then after one thing each.
        anew, left = found(kind, tmp_path, overwrite=True), min(count, 1)
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "delete", dying)
            with pytest.raises(KeyboardInterrupt), anew.claimed({"of": "new"}):
                pass
        if count:
            assert not found(kind, tmp_path).is_new
            assert b"old" in anew.storage.read(kind.mark, limit=99)
    with found(kind, tmp_path, overwrite=True).claimed({"of": "new"}):
        assert anew.storage.list() == [kind.mark]
        assert b"new" in anew.storage.read(kind.mark, limit=99)
