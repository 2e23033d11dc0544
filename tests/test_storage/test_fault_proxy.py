"""The test helpers themselves: what a client sees of each fault, and a server that comes back."""

from __future__ import annotations

import http.client
import time
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    FlexibleChecksumError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from tests.kit.fault_proxy import (
    EXPIRED,
    FLIPPED,
    INTERNAL_ERROR,
    RESET,
    RESET_AFTER,
    SLOW_DOWN,
    SLOW_STREAM,
    SLOW_STREAM_SECONDS,
    TIMEOUT,
    TRUNCATED,
    UNAVAILABLE,
    Chance,
    FaultProxy,
)
from tests.kit.object_store import ObjectStore

BUCKET = ObjectStore.bucket
CONTENT = bytes(range(256)) * 100


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with ObjectStore(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def direct(store):
    return store.client()


@pytest.fixture
def proxy(store, capfd):
    with FaultProxy(store.endpoint) as proxy:
        yield proxy
    assert capfd.readouterr().err == "", "something was printed"


@pytest.fixture
def client(store, proxy):
    return store.client(proxy.endpoint, read_timeout=1)


@pytest.fixture
def key(request) -> str:
    return f"{request.node.name}/some key+é"


def inject(proxy: FaultProxy, fault: str, method: str) -> None:
    proxy.choose = lambda asked, path: fault if asked == method else None


def content(client, key: str) -> bytes:
    return client.get_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")["Body"].read()


def exists(client, key: str) -> bool:
    return client.list_objects_v2(Bucket=BUCKET, Prefix=key)["KeyCount"] == 1


def put_in_chunks(client, key: str, pieces: list[bytes]) -> int:
    url = urlsplit(client.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": key}))
    connection = http.client.HTTPConnection(url.hostname, url.port)
    connection.request("PUT", f"{url.path}?{url.query}", iter(pieces), encode_chunked=True)
    status = connection.getresponse().status
    connection.close()
    return status


def test_passes_everything_on_unchanged(proxy, client, direct, key):
    client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT, Metadata={"step": "5"})
    assert content(direct, key) == content(client, key) == CONTENT
    head = client.head_object(Bucket=BUCKET, Key=key)
    assert (head["ContentLength"], head["Metadata"]) == (len(CONTENT), {"step": "5"})
    assert exists(client, key)
    client.put_object(Bucket=BUCKET, Key=key, Body=b"")
    assert content(client, key) == b""
    client.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": key}]})
    client.delete_object(Bucket=BUCKET, Key=key)
    assert not exists(direct, key)
    methods = ["PUT", "GET", "HEAD", "GET", "PUT", "GET", "POST", "DELETE"]
    assert [method for method, _ in proxy.requests] == methods
    assert not proxy.injected


def test_passes_chunks_on(proxy, client, direct, key):
    assert put_in_chunks(client, key, [CONTENT, b"end"]) == 200
    assert content(direct, key) == CONTENT + b"end"


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (INTERNAL_ERROR, 500, "InternalError"),
        (UNAVAILABLE, 503, "ServiceUnavailable"),
        (SLOW_DOWN, 503, "SlowDown"),
        (EXPIRED, 400, "ExpiredToken"),
    ],
)
def test_errors(proxy, client, direct, key, fault, status, code):
    inject(proxy, fault, "PUT")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    assert refused.value.response["Error"]["Code"] == code
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert not exists(direct, key)
    assert proxy.injected == {fault: 1}


@pytest.mark.parametrize(
    ("fault", "done"), [(RESET, False), (RESET_AFTER, True), (TRUNCATED, True)]
)
def test_a_write_whose_connection_is_reset(proxy, client, direct, key, fault, done):
    inject(proxy, fault, "PUT")
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    assert exists(direct, key) == done
    assert proxy.injected == {fault: 1}


def test_timeout(proxy, client, direct, key):
    inject(proxy, TIMEOUT, "PUT")
    with pytest.raises(ReadTimeoutError):
        client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    assert not exists(direct, key)
    proxy.hold = 0.1
    with pytest.raises(ConnectionClosedError):
        client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)


def test_slow_stream(proxy, client, direct, key):
    direct.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    inject(proxy, SLOW_STREAM, "GET")
    begin = time.monotonic()
    assert content(client, key) == CONTENT
    assert time.monotonic() - begin >= SLOW_STREAM_SECONDS
    assert proxy.injected == {SLOW_STREAM: 1}


def test_a_truncated_body(proxy, client, direct, key):
    direct.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    inject(proxy, TRUNCATED, "GET")
    with pytest.raises(ResponseStreamingError, match="IncompleteRead"):
        content(client, key)
    assert proxy.injected == {TRUNCATED: 1}


def test_a_byte_flipped_on_the_way_there_is_refused(proxy, client, direct, key):
    inject(proxy, FLIPPED, "PUT")
    with pytest.raises(ClientError) as refused:
        client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT, ChecksumAlgorithm="SHA256")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert not exists(direct, key)
    assert proxy.injected == {FLIPPED: 1}


def test_a_byte_flipped_in_a_chunk_is_one_of_its_content(proxy, client, direct, key):
    inject(proxy, FLIPPED, "PUT")
    assert put_in_chunks(client, key, [b"begin", CONTENT]) == 200
    sent, stored = b"begin" + CONTENT, content(direct, key)
    assert len(stored) == len(sent)
    assert sum(a != b for a, b in zip(stored, sent, strict=True)) == 1


def test_a_byte_flipped_on_the_way_back_is_noticed(proxy, client, direct, key):
    direct.put_object(Bucket=BUCKET, Key=key, Body=CONTENT, ChecksumAlgorithm="SHA256")
    inject(proxy, FLIPPED, "GET")
    assert exists(client, key), "a listing has no checksum and is left alone"
    with pytest.raises(FlexibleChecksumError):
        content(client, key)
    assert proxy.injected == {FLIPPED: 1}


def test_latency(proxy, client):
    proxy.latency = 0.3
    begin = time.monotonic()
    client.head_bucket(Bucket=BUCKET)
    assert time.monotonic() - begin >= proxy.latency


def test_chance_is_reproducible_and_keeps_its_rate():
    def choices(seed: int) -> list[str | None]:
        chance = Chance(seed, 0.2, (RESET, TIMEOUT))
        return [chance("GET", "/") for _ in range(1000)]

    assert choices(1) == choices(1) != choices(2)
    assert set(choices(1)) == {None, RESET, TIMEOUT}
    assert 150 < 1000 - choices(1).count(None) < 250


def test_a_reader_may_not_write(store, direct, key):
    reader = store.client(reader=True)
    with pytest.raises(ClientError, match="AccessDenied"):
        reader.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    direct.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    assert content(reader, key) == CONTENT


def test_clients_find_the_server_by_the_environment(store, monkeypatch):
    for name, value in store.env().items():
        monkeypatch.setenv(name, value)
    buckets = boto3.client("s3").list_buckets()["Buckets"]
    assert [bucket["Name"] for bucket in buckets] == [BUCKET]


def test_what_was_written_survives_a_kill(store, proxy, client, key):
    client.put_object(Bucket=BUCKET, Key=key, Body=CONTENT)
    store.kill()
    with pytest.raises(ConnectionClosedError):
        content(client, key)
    store.restart()
    assert content(client, key) == CONTENT
