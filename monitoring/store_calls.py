"""Calls of the object store as metrics; what `storage.object_store.S3ObjectStore` is given to
tell."""

from functools import cache

from monitoring import metrics


def count_store_call(op: str, seconds: float, size_bytes: int, failure: str | None) -> None:
    """Picklable by its name, as a store is that travels to another process."""
    _begin()
    labels = {"op": op}
    metrics.STORE_SECONDS.observe(seconds, tags=labels)
    if size_bytes:
        metrics.STORE_BYTES.inc(size_bytes, tags=labels)
    if failure is not None:
        metrics.STORE_ERRORS.inc(tags={"op": op, "kind": failure})


@cache
def _begin() -> None:
    metrics.begin(metrics.STORE_BYTES, metrics.STORE_ERRORS)
