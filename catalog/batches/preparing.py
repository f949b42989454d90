"""Before a batch has a driver: its manifest is put where drivers find it, or only checked."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from catalog.batches.lines import are_requests, manifest_of
from catalog.batches.request import BatchRequest, UploadedManifest
from catalog.manifest.pinning import Checked, check
from catalog.manifest.source import open_source
from storage import keys
from storage.batches import Batch, BatchError
from storage.errors import ObjectNotFound
from storage.files import SqlFiles
from storage.object_store import ObjectStore

_JSON_LINES = (".jsonl", ".ndjson")


class Preparing:
    """With the service's own bucket, and `model`, the name of its default one."""

    def __init__(
        self, bucket: Callable[[str], ObjectStore], own: str, files: SqlFiles, model: str
    ) -> None:
        self._bucket, self._own, self._files, self._model = bucket, own, files, model

    def adopt(self, batch: Batch, request: BatchRequest, file: UploadedManifest) -> None:
        """A copy of the upload in the run's folder, OpenAI's lines as a manifest. Raises
        LinesRefused, ObjectNotFound (the file was deleted meanwhile) and StoreUnavailable."""
        objects, key = self._bucket(self._own), request.manifest_key(batch)
        if objects.stat(key) is not None:  # an earlier look's, or an earlier batch's
            return
        data = objects.get(keys.input_key(batch.tenant, file.sha256))
        if file.suffix in _JSON_LINES and are_requests(data):
            model = request.run.get("model") or self._model
            data = manifest_of(data, model, lambda id_: self._photo_uri(batch.tenant, id_))
        objects.put_if_absent(key, data, "application/octet-stream")

    def require(self, manifest_uri: str) -> None:
        """That there is something to read. Raises ManifestNotFound and ManifestRefused."""
        open_source(manifest_uri, self._bucket).version()

    def check(self, manifest_uri: str, progress: Callable[[int], None]) -> Checked:
        """Raises ManifestNotFound, ManifestRefused and StorageError."""
        with tempfile.TemporaryDirectory(prefix="shopreel-") as temp:
            return check(open_source(manifest_uri, self._bucket), Path(temp), progress)

    def _photo_uri(self, tenant: str, file_id: str) -> str:
        file = self._files.get(tenant, file_id)
        key = keys.input_key(tenant, file.sha256)
        if self._bucket(self._own).stat(key) is None:
            raise ObjectNotFound(key)
        return f"s3://{self._own}/{key}"


def found_by(checked: Checked) -> tuple[BatchError, ...]:
    """The first bad rows of a manifest."""
    return tuple(
        BatchError(
            row.problem.code.value,
            f"row {row.index}: {row.problem.message}",
            row.problem.column,
            row.problem.line,
        )
        for row in checked.first_bad_rows
    )
