"""Runs in S3-compatible object storage, behind the same interface as a local folder.

Credentials, region and endpoint come from the standard AWS chain (environment, profile, instance
profile; `AWS_ENDPOINT_URL_S3`), never from a URI. Every object is written with a SHA-256 that the
store verifies, and read with the checksum that it was stored with. Requests are repeated here and
not in botocore, whose retries are counted and not timed and never read credentials again.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import boto3
import tenacity
import urllib3
from botocore import exceptions as boto
from botocore.config import Config
from botocore.utils import parse_timestamp

from job.errors import InputError
from job.storage.base import QUICK_SECONDS, StoreError, WriteConflictError, plain_parts
from job.storage.lease import BEAT_SECONDS, Lease, Seen

# A request that takes longer is given up and repeated. Checkpoints have a few MB.
CONNECT_SECONDS = 5.0
READ_SECONDS = 20.0
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 10.0
# A store that stays away is mentioned after this time, and then again after as long.
WARN_SECONDS = 10.0
# A lock can't wait for a store: better a beat is missed than the one after it comes late.
LEASE_PATIENCE_SECONDS = 5.0
# AWS documentation, "Error responses" of the Amazon S3 API; BadDigest is a byte lost on the way,
# ConditionalRequestConflict another conditional write at the same moment.
TRANSIENT = {
    *("InternalError", "ServiceUnavailable", "SlowDown", "RequestTimeout", "OperationAborted"),
    *("Throttling", "ThrottlingException", "RequestLimitExceeded", "BandwidthLimitExceeded"),
    *("TooManyRequests", "429", "Busy"),
    *("BadDigest", "XAmzContentChecksumMismatch", "IncompleteBody", "ConditionalRequestConflict"),
    *("500", "502", "503", "504"),
}
UNSUPPORTED = {"NotImplemented", "501"}
# Answers to HEAD have no body, so that an expired token is only a 400 there.
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired", "400"}
# Where none were found at first, a person has to do something. Later they are being renewed.
LOGIN = {
    *("SSOTokenLoadError", "UnauthorizedSSOTokenError", "TokenRetrievalError"),
    *("LoginRefreshRequired", "LoginTokenLoadError"),
}
NO_CREDENTIALS = LOGIN | {"NoCredentialsError", "PartialCredentialsError"}
# Of a store that wants a checksum of before 2025 for several deletions at once, or knows none.
NO_BATCHES = {"MissingContentMD5", "InvalidDigest", "NotImplemented", "501", "MethodNotAllowed"}
MISSING = {"NoSuchKey", "404", "NotFound"}
LOST_RACE = {"PreconditionFailed", "412"}
BROKEN_CONNECTION = (
    *(boto.ConnectionError, boto.HTTPClientError, boto.ResponseStreamingError),
    *(boto.IncompleteReadError, boto.FlexibleChecksumError, boto.CredentialRetrievalError),
    # Some failures of a body that is being read pass botocore as they are.
    urllib3.exceptions.HTTPError,
)

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class Connection:
    """The way to a store, shared by everything below one root.

    Args:
        patience: Seconds for which a request is repeated while the store does not answer.
        read_timeout: Seconds that a single request may take.
    """

    def __init__(
        self, *, patience: float = QUICK_SECONDS, read_timeout: float = READ_SECONDS
    ) -> None:
        self.patience, self.read_timeout = patience, read_timeout
        self._client: Any = None
        # Whether credentials were there, and were taken.
        self.has_answered = False

    def client(self, *, renew: bool = False) -> Any:
        """The S3 client; `renew` reads the credentials again."""
        if self._client is None or renew:
            self._client = self._new_client()
        return self._client

    def _new_client(self) -> Any:
        # A new session: the default one would keep the credentials that it has read.
        # AWS_REGION is what other SDKs read; this one knows AWS_DEFAULT_REGION and profiles.
        session = boto3.session.Session(region_name=os.environ.get("AWS_REGION"))
        config = Config(
            connect_timeout=min(CONNECT_SECONDS, self.read_timeout),
            read_timeout=self.read_timeout,
            retries={"total_max_attempts": 1},
            # As many as threads may ask at one time; the default of 10 would make them wait.
            max_pool_connections=32,
        )
        try:
            client = session.client("s3", config=config)
        except ValueError as error:
            raise StoreError(
                "the endpoint is no URL; AWS_ENDPOINT_URL_S3 looks like https://HOST:PORT"
            ) from error
        is_chosen = "addressing_style" in (client.meta.config.s3 or {})
        if is_chosen or client.meta.endpoint_url.endswith(".amazonaws.com"):
            return client
        # Few other stores serve a host name for each bucket.
        path_style = Config(s3={"addressing_style": "path"})
        return session.client("s3", config=config.merge(path_style))


class S3Storage:
    """A prefix of a bucket.

    Args:
        bucket: Its name.
        prefix: Where the tree begins, without `/` at either end; empty for the whole bucket.
        connection: The way to the store.
    """

    is_remote = True

    def __init__(self, bucket: str, prefix: str, connection: Connection) -> None:
        self._bucket, self._prefix, self._connection = bucket, prefix, connection

    @property
    def uri(self) -> str:
        """`s3://BUCKET/PREFIX`."""
        return "/".join(filter(None, (f"s3://{self._bucket}", self._prefix)))

    def at(self, path: str) -> S3Storage:
        """The prefix `path` below this one, by the same connection."""
        return S3Storage(self._bucket, self._key(path), self._connection)

    def read(self, path: str, *, limit: int) -> bytes:
        """As `Storage.read`; too large an object is left unread."""
        return self._fetch(path, limit)[0]

    def peek(self, path: str, *, limit: int) -> Seen:
        """Reads a small object with its version and age. Raises like `read`."""
        content, answer = self._fetch(path, limit)
        headers = answer["ResponseMetadata"]["HTTPHeaders"]
        now = parse_timestamp(headers["date"])
        return Seen(content, answer["ETag"], (now - answer["LastModified"]).total_seconds())

    def write(self, path: str, content: bytes) -> None:
        """As `Storage.write`; the store replaces an object whole or not at all."""
        self._put(path, content)

    def version(self, path: str) -> str | None:
        """The object's ETag; None where there is none."""
        try:
            return self._call("head_object", Key=self._key(path))["ETag"]
        except FileNotFoundError:
            return None

    def write_if(self, path: str, content: bytes, version: str | None) -> str:
        """As `Storage.write_if`, by a put on condition; the new ETag."""
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": version}
        try:
            return self._put(path, content, **condition)["ETag"]
        except (WriteConflictError, FileNotFoundError):
            # The answer to an earlier try may have been lost on the way: then what stands there is
            # what this call wrote, and it has won. Writers' contents differ.
            with contextlib.suppress(FileNotFoundError, ValueError):
                found = self.peek(path, limit=len(content))
                if found.content == content:
                    return found.version
            raise WriteConflictError(f"{self.uri}/{path}") from None

    def list(self) -> list[str]:
        """As `Storage.list`, of objects and of the prefixes that stand for folders."""
        names = set()
        start = self._below(self._prefix)
        for page in self._pages(start, Delimiter="/"):
            names |= {item["Key"] for item in page.get("Contents", ())}
            names |= {item["Prefix"] for item in page.get("CommonPrefixes", ())}
        plain = {name.removeprefix(start).strip("/") for name in names}
        # Some stores mark a folder by an empty object of its name.
        return sorted(name for name in plain if name and not name.startswith("."))

    def files(self) -> dict[str, int]:
        """Sizes in bytes by path, without hidden files."""
        start = self._below(self._prefix)
        found = {
            item["Key"].removeprefix(start): item["Size"]
            for page in self._pages(start)
            for item in page.get("Contents", ())
        }
        return {k: v for k, v in found.items() if k and not k.split("/")[-1].startswith(".")}

    def delete(self, path: str) -> None:
        """As `Storage.delete`; raises StoreError where the store refuses one of the objects."""
        key = self._key(path)
        keys = [i["Key"] for page in self._pages(f"{key}/") for i in page.get("Contents", ())]
        # The last is what some stores keep for an empty folder. 1,000 are allowed in one request.
        doomed = [key, *keys, f"{key}/"]
        for start in range(0, len(doomed), 1000):
            self._delete_batch(doomed[start : start + 1000])

    def _delete_batch(self, keys: Sequence[str]) -> None:
        names = [{"Key": key} for key in keys]
        try:
            answer = self._call("delete_objects", Delete={"Objects": names, "Quiet": True})
        except StoreError as error:
            if error_code(error.__cause__) not in NO_BATCHES:
                raise
            for key in keys:
                self._call("delete_object", Key=key)
            return
        for failure in answer.get("Errors", ()):
            raise StoreError(f"{self.uri}: {failure['Key']} can't be deleted: {failure['Code']}")

    def probe(self) -> None:
        """Writes, reads and deletes an object, and tries a conditional write."""
        quick = Connection(patience=min(QUICK_SECONDS, self._connection.patience))
        probing = S3Storage(self._bucket, self._prefix, quick)
        name = f".probe-{secrets.token_hex(8)}"
        content = name.encode()
        try:
            first = probing.write_if(name, content, None)
            try:
                if probing.read(name, limit=100) != content:
                    raise StoreError("it returns other bytes than were written")
                for header, wrong in (("If-None-Match", None), ("If-Match", '"0"')):
                    with contextlib.suppress(WriteConflictError):
                        probing.write_if(name, header.encode(), wrong)
                        raise StoreError(f"it does not support conditional writes ({header})")
                probing.write_if(name, b"", first)
            finally:
                probing.delete(name)
        except WriteConflictError as error:
            raise InputError(
                "--storage", self.uri, "it refuses a write on a condition that holds (If-Match)"
            ) from error
        except StoreError as error:
            raise InputError("--storage", self.uri, str(error)) from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """As `Storage.locked`, by a lease that is renewed for the time of the block."""
        with self._lease().held():
            yield

    def holder(self) -> str | None:
        """Who holds the lease, None for nobody."""
        return self._lease().holder()

    def _lease(self) -> Lease:
        connection = Connection(patience=LEASE_PATIENCE_SECONDS, read_timeout=BEAT_SECONDS)
        return Lease(S3Storage(self._bucket, self._prefix, connection))

    def _fetch(self, path: str, limit: int) -> tuple[bytes, dict[str, Any]]:
        def get(client: Any) -> tuple[bytes, dict[str, Any]]:
            answer = client.get_object(
                Bucket=self._bucket, Key=self._key(path), ChecksumMode="ENABLED"
            )
            if answer["ContentLength"] > limit:
                answer["Body"].close()
                raise ValueError(f"{path} is larger than {limit:,} bytes")
            return answer["Body"].read(), answer

        return self._repeated(get)

    def _put(self, path: str, content: bytes, **condition: str) -> dict[str, Any]:
        # Computed here, it goes as a header. Asked of botocore it would come after the content,
        # over https, in a form that not all stores take.
        checksum = base64.b64encode(hashlib.sha256(content).digest()).decode()
        return self._call(
            "put_object",
            Key=self._key(path),
            Body=content,
            ChecksumSHA256=checksum,
            **condition,
        )

    def _pages(self, start: str, **options: str) -> Iterator[dict[str, Any]]:
        options["Prefix"] = start
        while True:
            page = self._call("list_objects_v2", **options)
            yield page
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, operation: str, **options: Any) -> dict[str, Any]:
        return self._repeated(
            lambda client: getattr(client, operation)(Bucket=self._bucket, **options)
        )

    def _repeated(self, request: Callable[[Any], Answer]) -> Answer:
        """Makes a request until it is answered, or the patience is at its end."""
        patience = self._connection.patience
        trouble = _Trouble(self.uri, patience)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass),
            wait=tenacity.wait_random_exponential(FIRST_WAIT_SECONDS, max=LONGEST_WAIT_SECONDS),
            stop=tenacity.stop_after_delay(patience),
            before_sleep=trouble.met,
            reraise=True,
        )
        try:
            answer = retrying(lambda: request(self._connection.client(renew=trouble.is_expired)))
            self._connection.has_answered = True
            return answer
        except boto.ClientError as error:
            code = error_code(error)
            if code in MISSING:
                raise FileNotFoundError(f"{self.uri}: no such object") from error
            if code in LOST_RACE:
                raise WriteConflictError(self.uri) from error
            raise StoreError(self._reason(error)) from error
        except (boto.BotoCoreError, urllib3.exceptions.HTTPError) as error:
            raise StoreError(self._reason(error)) from error

    def _may_pass(self, error: BaseException) -> bool:
        """Whether to try again: also where credentials that were there are being renewed."""
        is_renewed = self._connection.has_answered and error_code(error) in NO_CREDENTIALS
        return is_renewed or is_transient(error)

    def _reason(self, error: Exception) -> str:
        """Why a request failed for good, and what to do, in one line without secrets."""
        if is_transient(error):
            return (
                f"{self.uri}: no answer for {self._connection.patience:.0f} s ({error_code(error)})"
            )
        match error_code(error):
            case "NotImplemented" | "501":
                return "the store does not support conditional writes"
            case "NoSuchBucket":
                return f"there is no bucket {self._bucket!r}; create it or name another"
            case "InvalidBucketName":
                return f"{self._bucket!r} is not a bucket's name; give s3://BUCKET/PREFIX"
            case "ParamValidationError" if "bucket" in str(error).lower():
                return f"{self._bucket!r} is not a bucket's name; give s3://BUCKET/PREFIX"
            case "AccessDenied" | "403" | "Forbidden" | "AllAccessDisabled":
                return f"these credentials have no permission for {self.uri} (AccessDenied)"
            case "InvalidAccessKeyId" | "SignatureDoesNotMatch" | "InvalidToken" as code:
                return f"the store does not accept these credentials ({code})"
            case "RequestTimeTooSkewed":
                return "this machine's clock differs too much from the store's; set it right"
            case "PermanentRedirect" | "301" | "AuthorizationHeaderMalformed":
                return f"bucket {self._bucket!r} is in another region; set AWS_REGION"
            case "SSLError":
                return (
                    "the store's certificate is not trusted here; AWS_CA_BUNDLE names a file with "
                    "those to trust"
                )
            case "ProfileNotFound":
                return f"{error}; AWS_PROFILE is to name one of those in ~/.aws/config"
            case code if code in LOGIN:
                return f"the AWS login has run out ({code}); renew it, by `aws sso login` say"
            case "NoCredentialsError" | "PartialCredentialsError":
                return (
                    "no AWS credentials were found; set AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, a profile, or use an instance profile"
                )
        return f"{self.uri}: {error_code(error)}"

    def _key(self, path: str) -> str:
        return self._below(self._prefix) + "/".join(plain_parts(path))

    @staticmethod
    def _below(prefix: str) -> str:
        return f"{prefix}/" if prefix else ""


class _Trouble:
    """What one request meets while it is being repeated."""

    def __init__(self, uri: str, patience: float) -> None:
        self._uri, self._patience = uri, patience
        self._began = self._said = time.monotonic()
        self.is_expired = False

    def met(self, state: tenacity.RetryCallState) -> None:
        assert state.outcome is not None  # tenacity asks after an attempt
        error = state.outcome.exception()
        self.is_expired = error_code(error) in EXPIRED | NO_CREDENTIALS
        now = time.monotonic()
        if now - self._said >= WARN_SECONDS:
            self._said = now
            log.warning(
                "%s does not answer for %.0f s now (%s); trying for %.0f s more",
                *(self._uri, now - self._began, error_code(error)),
                self._patience - (now - self._began),
            )


def error_code(error: BaseException | None) -> str:
    """S3's code of an error, or the name of its class."""
    response = error.response if isinstance(error, boto.ClientError) else {}
    return response.get("Error", {}).get("Code") or type(error).__name__


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, boto.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = error_code(error)
        return code in TRANSIENT | EXPIRED or (status >= 500 and code not in UNSUPPORTED)
    # Nobody mends a certificate while a run waits; a connection that was cut is another matter.
    is_mistrusted = isinstance(error, boto.SSLError) and "CERTIFICATE" in str(error)
    return isinstance(error, BROKEN_CONNECTION) and not is_mistrusted
