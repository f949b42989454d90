"""The HTTP API in process over the real stores; the Dispatcher alone is away, so jobs stay put."""

import functools
import io
import struct
from pathlib import Path
from typing import Any
from zlib import compress, crc32

from PIL import Image
from starlette.testclient import TestClient

from cluster.cost import CostModel
from cluster.ladder import Floor
from cluster.tiers import TierConfig
from diffusion.model_folder import ModelCard, ModelConfig
from serve.api import DispatcherLine, open_api
from serve.config import AppConfig
from serve.edge.auth import AuthConfig
from serve.edge.limits import Limits as ServerLimits
from serve.http_api import create_app
from serve.services.admission import Admission
from storage import keys
from storage.job_store import JobStoreConfig, SqlJobStore
from storage.jobs import Job, VideoFile
from storage.object_store import ObjectStoreConfig, S3ObjectStore
from storage.tenants import Quota, SqlTenants
from tests.sample_jobs import lease_next
from tests.sample_model import ARCHITECTURE
from video.photo import PhotoLimits
from video.photo_pool import PhotoPool, PhotoPoolConfig

CARD = ModelCard("tiny-random", "0" * 64, size_multiple=16)


def jpeg(width: int = 640, height: int = 480, **save: Any) -> bytes:
    stream = io.BytesIO()
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(stream, "JPEG", **save)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing: a decompression bomb's outside."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", compress(bytes(1 << 20)))


@functools.cache
def photo_pool() -> PhotoPool:
    """One for all tests; its processes end with this one."""
    return PhotoPool(PhotoPoolConfig(workers=1), PhotoLimits())


def admission(config: AppConfig) -> Admission:
    cost = CostModel(ARCHITECTURE, (*config.tiers, config.stages.camera), config.model, {})
    return Admission(cost, Floor(area_px=512**2, num_frames=16, size_multiple=64))


def error_of(response: Any) -> dict[str, Any]:
    (envelope,) = response.json().values()
    assert set(envelope) == {"message", "type", "param", "code"}
    error: dict[str, Any] = envelope
    return error


class Service:
    """`http` is a client of it; `jobs` and `objects` are its stores."""

    def __init__(
        self,
        s3: ObjectStoreConfig,
        folder: Path,
        *,
        url: str | None = None,
        auth: bool = False,
        max_queued_jobs: int = 1000,
        **sections: Any,
    ):
        self.folder = folder
        settings: dict[str, Any] = {
            "model": ModelConfig(source="tiny"),
            "default_model": ModelConfig(source="tiny").name,
            "object_store": s3,
            "job_store": JobStoreConfig(url=url or f"sqlite:///{folder / 'jobs.sqlite'}"),
            "tiers": (TierConfig(name="cpu"),),
            "auth": AuthConfig(enabled=auth),
            "limits": ServerLimits(max_queued_jobs=max_queued_jobs),
        }
        self.config = AppConfig(**settings | sections)
        assert self.config.job_store is not None
        self.jobs = SqlJobStore(self.config.job_store)
        self.objects = S3ObjectStore(s3)
        self.woken = 0
        self.stopped: list[str] = []
        self.broken: list[str] = []
        line = DispatcherLine(self._wake, self.stopped.append, self._broken)
        api = open_api(self.config, CARD, admission(self.config), line, photo_pool())
        self.videos, self.memory = api.videos, api.memory
        self.app = create_app(api)
        self.http = TestClient(self.app, base_url="http://127.0.0.1")

    def _wake(self) -> None:
        self.woken += 1

    async def _broken(self) -> list[str]:
        return self.broken

    def key(self, tenant: str, quota: Quota | None = None) -> dict[str, str]:
        """The header of a new key of this tenant."""
        tenants = SqlTenants(self.jobs.database)
        tenants.put(tenant, quota)
        _, secret = tenants.issue_key(tenant)
        return {"Authorization": f"Bearer {secret}"}

    def create(
        self,
        photo: bytes | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        **fields: Any,
    ) -> Any:
        once = {} if key is None else {"Idempotency-Key": key}
        return self.http.post(
            "/v1/videos",
            headers={**(headers or {}), **once},
            data={"prompt": "a mug turns", **fields},
            files={"input_reference": ("photo.jpg", jpeg() if photo is None else photo)},
        )

    def finish(self, video_id: str, video: bytes) -> Job:
        """What the Dispatcher and its stages would do."""
        (job,) = lease_next(self.jobs, self.jobs.next_epoch(), 1)
        assert job.id == video_id
        attempt = job.current_attempt
        self.objects.put(keys.video_key(attempt), video, "video/mp4")
        self.objects.put(keys.manifest_key(attempt), b'{"seed": 1}', "application/json")
        result = VideoFile(
            result_id=job.request.result_id,
            video_key=keys.video_key(attempt),
            poster_key=keys.poster_key(attempt),
            spritesheet_key=keys.spritesheet_key(attempt),
            manifest_key=keys.manifest_key(attempt),
            sha256="ab" * 32,
            size_bytes=len(video),
            width=640,
            height=480,
            frames=16,
            fps=8.0,
            seconds=2.0,
            timings={"denoising": 1.5},
        )
        commit = keys.result_key(job.request.tenant, result.result_id)
        assert self.objects.put_if_absent(commit, result.to_json(), "application/json")
        return self.jobs.complete(attempt, result)

    def is_untouched(self) -> bool:
        """Nothing stored, no job, nobody woken."""
        return (
            not list(self.objects.iter_objects(""))
            and not self.jobs.list_jobs("default", limit=1, after=None, order="asc")
            and self.woken == 0
        )
