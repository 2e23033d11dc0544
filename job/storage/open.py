"""Which storage a place is."""

from __future__ import annotations

from job.errors import InputError
from job.storage.base import QUICK_SECONDS, Storage
from job.storage.disk import LocalStorage


def open_storage(
    uri: str, *, patience: float = QUICK_SECONDS, option: str = "--storage"
) -> Storage:
    """The storage behind a `--storage` value.

    Args:
        uri: A local folder, or `s3://BUCKET/PREFIX`.
        patience: Seconds for which an object store may fail to answer.
        option: What errors call the place.

    Raises:
        InputError: An unknown kind of place, or one that carries a secret.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return LocalStorage(uri)
    if "@" in rest or "?" in rest:
        # Not shown again: it may hold a secret, and errors are logged.
        raise InputError(
            option,
            f"{scheme}://...",
            "give s3://BUCKET/PREFIX only; credentials belong into the "
            "standard AWS places (environment, profile or instance profile)",
        )
    if scheme != "s3":
        raise InputError(option, uri, "name a local folder or s3://BUCKET/PREFIX")
    # boto3 takes a third of a second to import, which a run on disk need not wait for.
    from job.storage.s3 import Connection, S3Storage

    bucket, _, prefix = rest.partition("/")
    return S3Storage(bucket, prefix.strip("/"), Connection(patience=patience))
