"""The one place where the S3 SDK's and urllib3's errors become ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from storage.errors import ObjectNotFound, StorageError, StoreMisconfigured, StoreUnavailable

_REMEDIES = {
    "NoSuchBucket": "create the bucket, or name another",
    "AccessDenied": "check both keys, and let them read, write, list and delete in this bucket",
    "InvalidAccessKeyId": "check the access key",
    "SignatureDoesNotMatch": "check the secret key and the region",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "check the endpoint and the region",
    "AuthorizationHeaderMalformed": "check the region",
    "MethodNotAllowed": "use a server with conditional writes and multi-object delete",
    "NotImplemented": "use a server with conditional writes and multi-object delete",
}


@contextmanager
def storage_errors(key: str) -> Iterator[None]:
    """Raises ObjectNotFound, StoreMisconfigured, StoreUnavailable, or else StorageError, for what
    the SDK raises inside. `key` is what the call was about."""
    try:
        yield
    except (MinioException, HTTPError) as error:
        raise _translated(error, key) from error


def _translated(error: Exception, key: str) -> StorageError:
    said = f"{key}: {error}"
    match error:
        case S3Error(code="NoSuchKey"):
            return ObjectNotFound(key)
        case S3Error(code=code) if code in _REMEDIES:
            return StoreMisconfigured(f"{said} -> {_REMEDIES[code]}")
        case S3Error(code="RequestTimeout"):  # a 400
            return StoreUnavailable(said)
        case S3Error(response=response) if response.status >= 500 or response.status in (409, 429):
            return StoreUnavailable(said)  # 409: two conditional writes crossed
        case S3Error():
            return StorageError(said)
        case ServerError(status_code=status) if status >= 500:
            return StoreUnavailable(said)
        case InvalidResponseError(_code=status) if status >= 500:
            return StoreUnavailable(said)
        case MaxRetryError(reason=SSLError()):
            return StoreMisconfigured(f"{said} -> check the certificate and the `secure` setting")
        case HTTPError():
            return StoreUnavailable(said)
    return StoreMisconfigured(f"{said} -> check that the endpoint speaks S3")
