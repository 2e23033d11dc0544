"""What stores differ in, and where credentials come from: the tables of docs/storage.md. What can't
be had here is played by a proxy that refuses as such stores do, or by a stub that answers as AWS
does."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import botocore.credentials
import pytest

from job.errors import InputError
from job.storage import lease
from job.storage.base import WriteConflictError
from job.storage.checkpoints import CheckpointStore
from job.storage.open import open_storage
from job.storage.s3 import Connection, S3Storage
from tests.kit.fault_proxy import (
    NO_BATCH,
    NO_CONDITIONS,
    NO_TRAILERS,
    Choose,
    FaultProxy,
    never,
    self_signed,
)
from tests.kit.object_store import DOMAIN, ObjectStore


def exercise(place: str) -> None:
    """All that a run asks of a store."""
    root = open_storage(place)
    root.probe()
    root.write("a/b", b"1" * 1000)
    assert root.read("a/b", limit=1000) == b"1" * 1000
    assert (root.list(), root.files()) == (["a"], {"a/b": 1000})
    first = root.write_if("i", b"1", None)
    with pytest.raises(WriteConflictError):
        root.write_if("i", b"2", None)
    root.write_if("i", b"2", first)
    with root.locked():
        assert root.holder()
    checkpoints = CheckpointStore(root.at("checkpoints"), "job")
    checkpoints.claim()
    checkpoints.save(5, {"x": b"weights"})
    restored = CheckpointStore(root.at("checkpoints"), "job").restore()
    assert restored is not None
    assert restored.files == {"x": b"weights"}
    for name in root.list():
        root.delete(name)
    # SeaweedFS still names folders that are empty now.
    assert root.files() == {}


def refusing(proxy: FaultProxy, *kinds: str) -> Choose:
    """What such a store refuses."""

    def choose(method: str, path: str) -> str | None:
        if NO_BATCH in kinds and method == "POST" and "delete" in path:
            return NO_BATCH
        is_trailed = {"x-amz-trailer", "transfer-encoding"} & proxy.headers[-1].keys()
        if NO_TRAILERS in kinds and is_trailed:
            return NO_TRAILERS
        return NO_CONDITIONS if NO_CONDITIONS in kinds and method == "PUT" else None

    return choose


# TLS, what the store refuses, and what the user has set.
OLD_CHECKSUMS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}
STORES: dict[str, tuple[bool, tuple[str, ...], dict[str, str]]] = {
    "http": (False, (), {}),
    "https": (True, (), {}),
    "http, no trailers": (False, (NO_TRAILERS,), {}),
    "https, no trailers": (True, (NO_TRAILERS,), {}),
    "https, no trailers, no batches": (True, (NO_TRAILERS, NO_BATCH), {}),
    "http, old checksums": (False, (), OLD_CHECKSUMS),
    "https, old checksums, no trailers": (True, (NO_TRAILERS,), OLD_CHECKSUMS),
}


@contextlib.contextmanager
def behind(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch, folder: Path, *, tls: bool
) -> Iterator[FaultProxy]:
    certificate = self_signed(folder) if tls else None
    if certificate:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    with FaultProxy(store.endpoint, never, certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        yield proxy


@pytest.mark.parametrize("case", STORES)
def test_a_store_that_serves(case, store, s3, monkeypatch, tmp_path):
    tls, refused, settings = STORES[case]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with behind(store, monkeypatch, tmp_path, tls=tls) as proxy:
        proxy.choose = refusing(proxy, *refused)
        exercise(s3)
        assert not proxy.injected[NO_TRAILERS]
        assert bool(proxy.injected[NO_BATCH]) == (NO_BATCH in refused)
        uploads = [h for (m, _), h in zip(proxy.requests, proxy.headers, strict=True) if m == "PUT"]
    assert uploads
    assert all("x-amz-checksum-sha256" in headers for headers in uploads)


@pytest.mark.parametrize("style", ["path", "virtual", "auto"])
def test_how_a_bucket_is_addressed(style, store, s3, monkeypatch, tmp_path):
    """By its path, or by a host name of its own."""
    name = f"{store.bucket}.{DOMAIN}"
    asked = set()
    resolve = socket.getaddrinfo

    def at_home(host: str, *others: object, **named: object) -> object:
        asked.add(host)
        return resolve("127.0.0.1" if host in (name, DOMAIN) else host, *others, **named)

    monkeypatch.setattr(socket, "getaddrinfo", at_home)
    (tmp_path / "config").write_text(f"[default]\ns3 =\n    addressing_style = {style}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{DOMAIN}:{store.ports['s3']}")
    exercise(s3)
    assert (name in asked) == (style == "virtual")


def test_a_store_without_conditional_writes_is_refused(store, s3, monkeypatch, tmp_path):
    with behind(store, monkeypatch, tmp_path, tls=False) as proxy:
        proxy.choose = refusing(proxy, NO_CONDITIONS)
        with pytest.raises(InputError, match="the store does not support conditional writes"):
            open_storage(s3).probe()


@pytest.mark.parametrize("condition", ["IfNoneMatch", "IfMatch"])
def test_so_is_one_that_does_not_look_at_the_condition(condition, s3, monkeypatch):
    put = S3Storage._put

    def careless(self: S3Storage, path: str, content: bytes, **conditions: str) -> object:
        conditions.pop(condition, None)
        return put(self, path, content, **conditions)

    monkeypatch.setattr(S3Storage, "_put", careless)
    header = {"IfNoneMatch": "If-None-Match", "IfMatch": "If-Match"}[condition]
    with pytest.raises(InputError, match=f"does not support conditional writes .{header}"):
        open_storage(s3).probe()
    assert open_storage(s3).list() == []


def test_a_certificate_that_nobody_trusts_is_named_at_once(store, s3, monkeypatch, tmp_path):
    certificate = self_signed(tmp_path)
    with FaultProxy(store.endpoint, never, certificate=certificate) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.endpoint)
        began = time.monotonic()
        with pytest.raises(InputError, match="certificate is not trusted here; AWS_CA_BUNDLE"):
            S3Storage(store.bucket, "x", Connection(patience=600)).probe()
        assert time.monotonic() - began < 5


def test_what_a_lease_leaves_in_a_versioned_bucket(store, s3, monkeypatch):
    """A version for each beat, of less than 200 bytes, which a rule of the bucket takes away."""
    client = store.client()
    bucket = f"versions-{s3.rpartition('/')[2]}"
    client.create_bucket(Bucket=bucket)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.05)
    exercise(f"s3://{bucket}/all")
    root, beats = open_storage(f"s3://{bucket}/run"), 5
    with root.locked():
        seen = set()
        deadline = time.monotonic() + 30
        while len(seen) < beats and time.monotonic() < deadline:
            seen.add(root.version(lease.LOCK))
    found = client.list_object_versions(Bucket=bucket, Prefix="run/")
    versions = [one for one in found["Versions"] if one["Key"] == f"run/{lease.LOCK}"]
    assert len(versions) >= beats
    assert max(one["Size"] for one in versions) < 200
    assert [one["IsLatest"] for one in versions].count(True) == 1
    assert not found.get("DeleteMarkers")


class Provider(BaseHTTPRequestHandler):
    """Answers as the places do from which AWS' clients fetch credentials."""

    keys: tuple[str, str]

    def answer(self) -> None:
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        key, secret = self.keys
        plain = {"AccessKeyId": key, "SecretAccessKey": secret, "Expiration": until}
        match self.path.partition("?")[0]:
            case "/latest/api/token":
                self.send("token", **{"X-aws-ec2-metadata-token-ttl-seconds": "60"})
            case "/latest/meta-data/iam/security-credentials/":
                self.send("role")
            case "/latest/meta-data/iam/security-credentials/role":
                # Without a token of the session: this store knows none.
                self.send(json.dumps({"Code": "Success", "Token": "", **plain}))
            case "/container":
                self.send(json.dumps({"Token": "", **plain}))
            case "/federation/credentials":
                role = {"accessKeyId": key, "secretAccessKey": secret, "sessionToken": ""}
                expires = int((time.time() + 3600) * 1000)
                self.send(json.dumps({"roleCredentials": {**role, "expiration": expires}}))
            case "/sts/":
                fields = {**plain, "SessionToken": ""}
                inner = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
                action = "AssumeRoleWithWebIdentity"
                self.send(
                    f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                    f"<{action}Result><Credentials>{inner}</Credentials></{action}Result>"
                    f"</{action}Response>"
                )
            case _:
                self.send_error(404)

    do_GET = do_PUT = do_POST = answer  # noqa: N815

    def send(self, text: str, **headers: str) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = text.encode()
        self.send_response(200)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def provider(store) -> Iterator[str]:
    """The address of who gives the store's credentials."""
    env = store.env()
    keys = (env["AWS_ACCESS_KEY_ID"], env["AWS_SECRET_ACCESS_KEY"])
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Provider,), {"keys": keys}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def by_environment(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    return keys


def by_profile(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    lines = "".join(f"{name.lower()} = {value}\n" for name, value in keys.items())
    (home / ".aws" / "credentials").write_text(f"[mine]\n{lines}")
    return {"AWS_PROFILE": "mine"}


def by_process(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    key, secret = keys.values()
    document = {"Version": 1, "AccessKeyId": key, "SecretAccessKey": secret}
    script = home / "process.py"
    script.write_text(f"print({json.dumps(json.dumps(document))})")
    line = f"credential_process = {sys.executable} {script}"
    (home / ".aws" / "config").write_text(f"[default]\n{line}\n")
    return {}


def by_sso(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    start = "https://example.invalid/start"
    (home / ".aws" / "config").write_text(
        f"[default]\nsso_start_url = {start}\nsso_region = us-east-1\n"
        "sso_account_id = 123456789012\nsso_role_name = role\n"
    )
    cache = home / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    # As `aws sso login` leaves it, by the SHA-1 of the address.
    token = {"startUrl": start, "accessToken": "t", "expiresAt": "2099-01-01T00:00:00Z"}
    (cache / f"{hashlib.sha1(start.encode()).hexdigest()}.json").write_text(
        json.dumps({**token, "region": "us-east-1"})
    )
    return {"AWS_ENDPOINT_URL_SSO": provider}


def by_web_identity(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    (home / "token").write_text("a-token")
    return {
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(home / "token"),
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/role",
        "AWS_ENDPOINT_URL_STS": f"{provider}/sts/",
    }


def by_container(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    return {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{provider}/container"}


def by_instance(home: Path, keys: dict[str, str], provider: str) -> dict[str, str]:
    return {
        "AWS_EC2_METADATA_DISABLED": "false",
        "AWS_EC2_METADATA_SERVICE_ENDPOINT": provider,
    }


CHAIN: dict[str, Callable[[Path, dict[str, str], str], dict[str, str]]] = {
    "environment": by_environment,
    "profile": by_profile,
    "process": by_process,
    "SSO": by_sso,
    "web identity": by_web_identity,
    "container": by_container,
    "instance metadata": by_instance,
}


@pytest.mark.parametrize("link", CHAIN)
def test_credentials_come_from(link, store, s3, provider, monkeypatch, tmp_path):
    keys = {name: value for name, value in store.env().items() if "KEY" in name}
    for name in keys:
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    # Else of the home folder of when botocore was imported.
    cache = str(tmp_path / ".aws" / "sso" / "cache")
    monkeypatch.setattr(botocore.credentials.SSOProvider, "_SSO_TOKEN_CACHE_DIR", cache)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in CHAIN[link](tmp_path, keys, provider).items():
        monkeypatch.setenv(name, value)
    root = open_storage(s3)
    root.probe()
    root.write("a", b"1")
    assert root.read("a", limit=9) == b"1"
