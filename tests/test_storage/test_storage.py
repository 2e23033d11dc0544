"""A local folder and an object store behave alike, and say what is wrong in one line."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import stat
import threading
import time

import pytest

from job.errors import InputError, JobError
from job.storage import lease
from job.storage.base import LockedError, Storage, StoreError, WriteConflictError
from job.storage.checkpoints import CheckpointError, CheckpointStore, SupersededError
from job.storage.disk import LocalStorage
from job.storage.lease import LOCK, Claim
from job.storage.open import open_storage
from job.storage.s3 import Connection, S3Storage
from tests.kit.fault_proxy import EXPIRED, NO_BATCH, FaultProxy, self_signed


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> str:
    return str(tmp_path / "root") if request.param == "disk" else request.getfixturevalue("s3")


@pytest.fixture
def root(place) -> Storage:
    return open_storage(place)


def test_what_is_written_is_read(root):
    root.write("a/b.txt", b"one")
    root.write("a/b.txt", b"two")
    assert root.at("a").read("b.txt", limit=3) == b"two"
    assert root.files() == {"a/b.txt": 3}
    with pytest.raises(ValueError, match="larger than 2 bytes"):
        root.read("a/b.txt", limit=2)
    with pytest.raises(FileNotFoundError):
        root.read("a/c.txt", limit=9)


def test_names_directly_below(root):
    assert root.list() == []
    for path in ("b/1", "b/2", "a", "c/d/e", ".hidden", "b-more/1"):
        root.write(path, b"x")
    assert root.list() == ["a", "b", "b-more", "c"]
    root.delete("b")
    root.delete("nothing")
    assert root.list() == ["a", "b-more", "c"]


def test_a_folder_on_disk_goes_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    disk = LocalStorage(tmp_path)
    for name in ("a/1", "a/2"):
        disk.write(name, b"x")

    def killed(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        disk.delete("a")
    assert (disk.list(), disk.files()) == ([], {})


@pytest.mark.parametrize("path", ["../x", "a/../x", "/x", "a//b", ""])
def test_no_path_leads_out_of_the_tree(root, path):
    with pytest.raises(ValueError, match="relative path"):
        root.write(path, b"")


def test_a_conditional_write_replaces_only_what_was_seen(root):
    first = root.write_if("i", b"1", None)
    assert first == root.version("i")
    with pytest.raises(WriteConflictError):
        root.write_if("i", b"2", None)
    second = root.write_if("i", b"2", first)
    with pytest.raises(WriteConflictError):
        root.write_if("i", b"3", first)
    with pytest.raises(WriteConflictError):
        root.write_if("none", b"3", second)
    assert root.read("i", limit=9) == b"2"
    assert root.version("none") is None


def test_of_many_conditional_writes_at_once_one_succeeds(root):
    for path in ("x", "y", "z"):
        barrier, winners = threading.Barrier(8), []

        def race(number, path=path, barrier=barrier, winners=winners):
            barrier.wait()
            try:
                root.write_if(path, str(number).encode(), None)
                winners.append(number)
            except WriteConflictError:
                pass

        threads = [threading.Thread(target=race, args=(n,)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (winner,) = winners
        assert root.read(path, limit=9) == str(winner).encode()


def test_a_probe_leaves_no_trace(root):
    root.probe()
    assert root.files() == {}


def test_one_writer_at_a_time(root):
    with root.locked():
        assert f"process {multiprocessing.current_process().pid}" in root.holder()
        with (
            pytest.raises(LockedError, match=f"process {multiprocessing.current_process().pid}"),
            open_again(root).locked(),
        ):
            raise AssertionError("two writers")
    assert root.holder() is None
    with root.locked():
        pass


def open_again(root: Storage) -> Storage:
    return open_storage(root.uri)


def _compete(place: str, ready, wins, losses, end) -> None:
    ready.wait()
    try:
        with open_storage(place).locked():
            wins.put(1)
            end.wait()
    except LockedError as holder:
        losses.put(str(holder))


def _competitions(places: list[str], outcomes) -> None:
    """For each place, what 19 of 20 drivers are told, and whether another one won too."""
    context = multiprocessing.get_context("fork")
    for place in places:
        ready, end = context.Barrier(20), context.Event()
        wins, losses = context.Queue(), context.Queue()
        drivers = [
            context.Process(target=_compete, args=(place, ready, wins, losses, end), daemon=True)
            for _ in range(20)
        ]
        for driver in drivers:
            driver.start()
        try:
            wins.get(timeout=60)
            lost = [losses.get(timeout=60) for _ in range(19)]
        finally:
            end.set()
        for driver in drivers:
            driver.join()
        outcomes.put((lost, not wins.empty()))


def test_of_twenty_drivers_one_gets_the_run(root, place, full):
    """Again and again; on S3 the losers first watch the lock for a while."""
    places = [f"{place}/run{i}" for i in range(20 if full else 2 if root.is_remote else 5)]
    # In a process of its own: this one may have threads, of which a fork inherits the locks only.
    fresh = multiprocessing.get_context("spawn")
    outcomes = fresh.Queue()
    race = fresh.Process(target=_competitions, args=(places, outcomes))
    race.start()
    for _ in places:
        lost, is_won_twice = outcomes.get(timeout=150)
        assert not is_won_twice
        assert all(message.startswith("process ") for message in lost)
    race.join()
    assert race.exitcode == 0


def test_the_lease_of_a_dead_holder_is_taken_over(s3):
    root = open_storage(s3)
    left = Claim(holder="process 1 on elsewhere", token="x")
    began = time.monotonic()
    root.write(LOCK, left.to_bytes())
    assert root.holder() == "process 1 on elsewhere"
    with root.locked():
        # The store's clock has whole seconds: what it calls older may be one younger.
        assert time.monotonic() - began > lease.LEASE_SECONDS - 1
        assert "elsewhere" not in root.holder()


def test_a_holder_that_slept_too_long_notices(s3, caplog):
    root = open_storage(s3)
    with root.locked():
        usurper = Claim(holder="process 1 on elsewhere", token="x").to_bytes()
        # As after a takeover while this machine was suspended.
        root.write(LOCK, usurper)
        deadline = time.monotonic() + 30
        while "has taken this run over" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert root.read(LOCK, limit=999) == usurper, "the lock of another is not released"


def test_checkpoints_in_either_place(root):
    store = CheckpointStore(root, "job")
    for step, loss in ((5, 0.1), (10, 0.3), (15, 0.2), (20, None)):
        store.save(step, {"a": bytes([step]) * 100, "b": b"{}"}, val_loss=loss)
    assert [e.step for e in store.entries()] == [5, 15, 20]
    assert root.list() == ["index.json", "step-00000005", "step-00000015", "step-00000020"]
    assert CheckpointStore(root, "job").restore().files["a"] == bytes([20]) * 100


def test_every_file_of_a_checkpoint_is_checked(root):
    """One byte of each file in turn; the message names the file and the hash."""
    for step in (5, 10):
        CheckpointStore(root, "job").save(step, {"a": b"a" * 100, "b": b"{}"})
    for name in ("a", "b", "manifest.json"):
        path = f"step-00000010/{name}"
        good = root.read(path, limit=9999)
        root.write(path, bytes([good[0] ^ 1]) + good[1:])
        restored = CheckpointStore(root, "job").restore()
        assert restored.step == 5
        assert f"{name} has SHA-256" in restored.skipped[0]
        root.write(path, good)
    assert CheckpointStore(root, "job").restore().step == 10
    root.write(
        "index.json", root.read("index.json", limit=9999).replace(b'"step": 10', b'"step": 9')
    )
    assert CheckpointStore(root, "job").restore().step == 10, "found by the folders themselves"


def test_pinned_checkpoints_stay(root):
    store = CheckpointStore(root, "job")
    store.save(1, {"a": b"1"})
    # By another process, while the run goes on.
    CheckpointStore(root, "job").pin(1)
    for step in range(2, 6):
        store.save(step, {"a": b"1"})
    assert [e.step for e in store.entries()] == [1, 4, 5]
    CheckpointStore(root, "job").pin(1, False)
    store.save(6, {"a": b"1"})
    assert [e.step for e in store.entries()] == [5, 6]
    with pytest.raises(KeyError):
        store.pin(1)


def test_an_earlier_attempt_can_not_commit_any_more(root):
    cut_off, later = CheckpointStore(root, "job"), CheckpointStore(root, "job")
    cut_off.claim()
    cut_off.save(5, {"a": b"1"})
    later.claim()
    with pytest.raises(SupersededError):
        cut_off.save(10, {"a": b"1"})
    later.save(8, {"a": b"1"})
    assert [e.step for e in CheckpointStore(root, "job").entries()] == [5, 8]


def test_not_even_after_the_run_was_started_anew(root):
    """`--overwrite` elsewhere, while this machine slept."""
    asleep = CheckpointStore(root, "job")
    asleep.claim()
    asleep.save(5, {"a": b"old"})
    for name in root.list():
        root.delete(name)
    anew = CheckpointStore(root, "job")
    anew.claim()
    anew.save(5, {"a": b"new"})
    with pytest.raises(SupersededError):
        asleep.save(5, {"a": b"old"})
    with pytest.raises(SupersededError):
        asleep.check()
    assert CheckpointStore(root, "job").restore().files == {"a": b"new"}


def test_checkpoints_of_another_version_are_left_alone(root):
    store = CheckpointStore(root, "job")
    store.save(5, {"a": b"1"})
    root.write("index.json", b'{"format": 99, "checkpoints": "unknown"}')
    for use in (store.orphans, store.restore, lambda: CheckpointStore(root, "job").claim()):
        with pytest.raises(JobError, match="format 99"):
            use()
    assert "step-00000005" in root.list()


def test_a_lost_answer_to_a_beat_is_not_the_loss_of_the_lock(s3, monkeypatch):
    root = open_storage(s3)
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.1)
    with root.locked():
        # As a beat does whose answer was lost on the way.
        found = root.peek(LOCK, limit=999)
        root.write(LOCK, found.content.replace(b'"beat": ', b'"beat": 9'))
        beats = {root.version(LOCK)}
        deadline = time.monotonic() + 20
        while len(beats) < 3:
            assert time.monotonic() < deadline
            beats.add(root.version(LOCK))
    assert root.holder() is None


def test_a_store_that_is_away_is_not_an_empty_one(store, s3, monkeypatch):
    CheckpointStore(open_storage(s3), "job").save(5, {"a": b"1"})
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="no answer for 1 s") as error:
        CheckpointStore(S3Storage("lenet", s3[11:], Connection(patience=1)), "job").restore()
    assert not isinstance(error.value, CheckpointError | FileNotFoundError)


def test_what_is_safe_is_still_known_while_the_store_is_away(tmp_path, monkeypatch):
    root = LocalStorage(tmp_path)
    store = CheckpointStore(root, "job")
    store.claim()
    store.save(5, {"a": b"1"})

    def away(path: str) -> str:
        raise StoreError("no answer")

    monkeypatch.setattr(root, "version", away)
    with pytest.raises(StoreError):
        store.check()
    assert store.last_committed == 5


WRONG = {
    "bucket": ({}, "s3://absent/x", "there is no bucket 'absent'"),
    "endpoint": ({"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}, None, "no answer for 1 s"),
    "endpoint that is no URL": ({"AWS_ENDPOINT_URL_S3": "localhost:9"}, None, "is no URL"),
    "key": ({"AWS_ACCESS_KEY_ID": "x" * 20}, None, "does not accept these credentials"),
    "secret": ({"AWS_SECRET_ACCESS_KEY": "x" * 40}, None, "does not accept these credentials"),
    "no credentials": (
        {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None},
        None,
        "no AWS credentials were found",
    ),
}


SSO = """
[profile sso]
sso_start_url = https://example.invalid/start
sso_region = us-east-1
sso_account_id = 123456789012
sso_role_name = none
region = us-east-1
"""


@pytest.mark.parametrize(
    ("profile", "why"), [("sso", "login has run out"), ("none", "AWS_PROFILE is to name one")]
)
def test_a_profile_that_gives_no_credentials(profile, why, s3, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(SSO)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", profile)
    with pytest.raises(InputError, match=why):
        S3Storage("lenet", "x", Connection(patience=1)).probe()


def test_credentials_that_go_while_a_run_lasts_are_waited_for(store, s3, monkeypatch, tmp_path):
    """As with a login that is renewed too late, or a file that is being written anew."""
    keys = {name: value for name, value in store.env().items() if "KEY" in name}
    lines = [f"{name.lower()} = {value}" for name, value in keys.items()]
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with FaultProxy(store.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        root = S3Storage("lenet", s3.rpartition("/")[2], Connection(patience=60))
        root.write("a", b"1")
        for name in keys:
            monkeypatch.delenv(name)
        proxy.choose = lambda method, path: None if proxy.injected[EXPIRED] else EXPIRED
        later = threading.Timer(0.5, file.write_text, ["\n".join(["[default]", *lines])])
        later.start()
        root.write("a", b"2")
        later.join()
        assert root.read("a", limit=9) == b"2"


def test_a_store_behind_https_that_takes_plain_uploads_only(store, s3, monkeypatch, tmp_path):
    """R2, Storj, older Ceph: the checksum goes as a header, not behind the content."""
    certificate = self_signed(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with FaultProxy(store.endpoint, certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        open_storage(s3).write("a", b"1" * 1000)
        assert open_storage(s3).read("a", limit=1000) == b"1" * 1000
    uploaded, _ = proxy.headers
    assert "x-amz-checksum-sha256" in uploaded
    assert uploaded["content-length"] == "1000"
    assert not {"x-amz-trailer", "transfer-encoding", "content-encoding"} & uploaded.keys()


def test_a_store_that_wants_an_old_checksum_for_deletions(store, s3, monkeypatch):
    """MinIO of 2024, PowerScale."""

    def refusing(method: str, path: str) -> str | None:
        return NO_BATCH if method == "POST" and "delete" in path else None

    with FaultProxy(store.endpoint, refusing) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        root = open_storage(s3)
        root.probe()
        for name in ("a/1", "a/2", "b"):
            root.write(name, b"x")
        root.delete("a")
        assert root.list() == ["b"]
    assert proxy.injected[NO_BATCH]


def test_a_way_to_name_buckets_that_is_chosen_is_kept(s3, monkeypatch, tmp_path):
    def url() -> str:
        client = Connection().client()
        return client.generate_presigned_url("get_object", {"Bucket": "bucket", "Key": "k"})

    (tmp_path / "config").write_text("[default]\ns3 =\n    addressing_style = virtual\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.example:9")
    assert url().startswith("http://store.example:9/bucket/k")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert url().startswith("http://bucket.store.example:9/k")


def test_a_share_without_sync_of_folders_is_written_to(tmp_path, monkeypatch):
    """CIFS, VirtualBox: EINVAL, for folders alone."""
    fsync = os.fsync

    def on_a_share(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", on_a_share)
    disk = LocalStorage(tmp_path / "share")
    disk.probe()
    disk.write("a/b", b"1")
    assert disk.read("a/b", limit=9) == b"1"


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(s3, monkeypatch, case):
    changes, place, why = WRONG[case]
    for name, value in changes.items():
        monkeypatch.delenv(name) if value is None else monkeypatch.setenv(name, value)
    bucket, _, prefix = (place or s3).removeprefix("s3://").partition("/")
    with pytest.raises(InputError, match="--storage") as error:
        S3Storage(bucket, prefix, Connection(patience=1)).probe()
    assert why in str(error.value)
    assert "\n" not in str(error.value)


def test_who_may_only_read_can_not_begin(store, s3, monkeypatch):
    for name, value in store.env(reader=True).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match="no permission"):
        open_storage(s3).probe()


@pytest.mark.parametrize(
    "uri",
    ["s3://key:secret@bucket/x", "s3://bucket/x?secret_key=secret", "s3a://key:secret@bucket/x"],
)
def test_a_secret_in_a_uri_is_refused_and_not_repeated(uri):
    with pytest.raises(InputError) as error:
        open_storage(uri)
    assert "secret" not in str(error.value)


def test_clocks_that_differ(s3, monkeypatch):
    from botocore import auth

    ahead = itertools.repeat(3600)
    real = auth.get_current_datetime

    def wrong(*arguments, **named):
        from datetime import timedelta

        return real(*arguments, **named) + timedelta(seconds=next(ahead))

    monkeypatch.setattr(auth, "get_current_datetime", wrong)
    with pytest.raises(InputError, match="clock differs"):
        open_storage(s3).probe()
