"""The way of one row: its photo and parameters into a job, the job's end into a row of results."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from catalog.manifest.rows import BadRow, Row
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow, RowStatus
from catalog.run.errors import PhotoUnusable, Refused
from catalog.run.options import RunOptions, job_key, readable
from catalog.run.photos import Photos
from catalog.run.service import TERMINAL, Service, Video
from catalog.run.window import Window

_CANCELLED_TRIES = 10


@dataclass(frozen=True, slots=True)
class RowRunner:
    """What every row of a run is made with."""

    options: RunOptions
    service: Service
    photos: Photos
    output: RunOutput
    window: Window
    live: set[str] = field(default_factory=set)  # ids of the videos under way

    async def run(self, row: Row, folder: str, round_: int) -> ResultRow:
        """Never raises for what is wrong with the row: that is its result.

        Raises ServiceAway and NotAllowed. Any number of runs of the same row, here or in a driver
        that was killed, are one job of the service: its idempotency key is the row's number,
        and how often its failure was tried again (`round_`).
        """
        began = time.time()
        try:
            photo = await self.window.insist(lambda: self.photos.read(row.image_uri))
            video = await self._best_try(row, photo, round_)
            return await self._result(row, video, folder, began)
        except PhotoUnusable as e:
            return _failed(row, "invalid_request_error", e.code, e.message, began)
        except Refused as e:
            return _failed(row, e.type, e.code, e.message, began)

    async def _best_try(self, row: Row, photo: bytes, round_: int) -> Video:
        """The first video that is good enough, else the best: the gate tries other seeds."""
        best: Video | None = None
        for number in range(1 + self.options.quality_retries):
            video = await self._video(row, photo, number, round_)
            if video["status"] != "completed" or _score(video) >= self.options.min_score:
                return video
            if best is None or _score(video) > _score(best):
                best = video
        assert best is not None
        return best

    async def _video(self, row: Row, photo: bytes, number: int, round_: int) -> Video:
        """One job; another one where an earlier driver, or somebody, cancelled that."""
        fields = self.options.fields(row, number)
        for again in range(_CANCELLED_TRIES):
            once = job_key(self.options.run_id, row.index, number, again, round_)
            video = await self._ended(fields, photo, once)
            if video["status"] != "cancelled":
                break
        return video

    async def _ended(self, fields: Mapping[str, str], photo: bytes, once: str) -> Video:
        answer = await self.window.insist(lambda: self.service.create(fields, photo, once))
        video_id = answer.video["id"]
        self.live.add(video_id)
        try:
            while answer.video["status"] not in TERMINAL:
                await asyncio.sleep(answer.poll_after_s)
                answer = await self.window.insist(lambda: self.service.get(video_id))
            self.live.discard(video_id)
        except Refused:  # deleted by somebody
            self.live.discard(video_id)
            raise
        return answer.video

    async def _result(self, row: Row, video: Video, folder: str, began: float) -> ResultRow:
        facts = _facts(video) | {"started_at": began, "finished_at": time.time()}
        if problem := self._problem(video):
            status, code, message = problem
            error = {"error_type": "server_error", "error_code": code, "error_message": message}
            return _row(row, status, **error, **facts)
        name = f"videos/{folder}/{readable(row.sku, row.index)}"
        content = await self._copy(video["id"], "video", f"{name}.mp4", "video/mp4")
        await self._copy(video["id"], "thumbnail", f"{name}.webp", "image/webp")
        return _row(
            row,
            RowStatus.OK,
            video_uri=f"{self.output.uri}/{name}.mp4",
            poster_uri=f"{self.output.uri}/{name}.webp",
            sha256=hashlib.sha256(content).hexdigest(),
            size_bytes=len(content),
            **facts,
        )

    def _problem(self, video: Video) -> tuple[RowStatus, str, str] | None:
        if video["status"] == "cancelled":
            return RowStatus.CANCELLED, "cancelled", "the job was cancelled"
        if video["status"] == "failed":
            return RowStatus.FAILED, video["error"]["code"], video["error"]["message"]
        if (score := _score(video)) < self.options.min_score:
            message = (
                f"the best of {1 + self.options.quality_retries} seeds scores {score:.2f},"
                f" {self.options.min_score:g} is asked for"
            )
            return RowStatus.FAILED, "quality_gate_failed", message
        return None

    async def _copy(self, video_id: str, variant: str, name: str, media_type: str) -> bytes:
        """Into the run's folder: what retention deletes in the service stays there."""
        content = await self.window.insist(lambda: self.service.content(video_id, variant))
        key, objects = self.output.key(name), self.output.objects
        await self.window.insist(lambda: asyncio.to_thread(objects.put, key, content, media_type))
        return content

    async def cancel_all(self) -> None:
        """What is under way, as far as the service can be reached for it."""
        await asyncio.gather(*map(self.service.cancel, self.live), return_exceptions=True)


def bad_row(row: BadRow) -> ResultRow:
    return _failed(row, "invalid_request_error", row.problem.code, str(row), None)


def _failed(
    row: Row | BadRow, type_: str, code: str, message: str, began: float | None
) -> ResultRow:
    error = {"error_type": type_, "error_code": code, "error_message": message}
    moments = {"started_at": began, "finished_at": time.time()}
    return _row(row, RowStatus.FAILED, **error, **moments)


def _row(row: Row | BadRow, status: RowStatus, **facts: Any) -> ResultRow:
    return ResultRow(
        row=row.index, sku=row.sku, title=row.title, status=status, echoed=row.extra, **facts
    )


def _score(video: Video) -> float:
    """Of its best candidate; 0 where nothing could be measured."""
    return max((c["score"] or 0.0 for c in video["candidates"]), default=0.0)


def _facts(video: Video) -> dict[str, Any]:
    """Columns of the result, as far as they are known for a video that ended so."""
    width, height = map(int, video["size"].split("x"))
    usage, timings = video["usage"] or {}, dict(video["timings"])
    best: dict[str, Any] = max(video["candidates"], key=lambda c: c["score"] or 0.0, default={})
    measured = ("score", "subject_first", "subject_mean", "flicker", "warp_error", "motion")
    return {
        "video_id": video["id"],
        "attempts": video["attempt"],
        "downgrades": tuple(step["step"] for step in video["downgrades"]),
        "tier": video["tier"],
        "model": video["model"],
        "seed": best.get("seed", video["seed"]),
        "width": width,
        "height": height,
        "frames": video["output_num_frames"],
        "fps": video["output_fps"],
        "seconds": float(video["seconds"]),
        "queue_s": timings.pop("queued", None),
        "timings": timings,
        "gpu_seconds": usage.get("gpu_seconds"),
        "cost": usage.get("cost"),
        "peak_vram_bytes": usage.get("peak_vram_bytes"),
        "shared_with": "a stored result" if usage and not video["timings"] else None,
    } | {name: best.get(name) for name in measured}
