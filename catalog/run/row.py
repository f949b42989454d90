"""The way of one row: its photo and parameters into a job, the job's end into a row of results."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from catalog.manifest.rows import BadRow, Row
from catalog.results.output import RunOutput
from catalog.results.row import ResultRow, RowStatus
from catalog.run.errors import PhotoUnusable, Refused, VideoLost
from catalog.run.options import RunOptions, readable
from catalog.run.photos import Photos
from catalog.run.row_jobs import NEW_JOBS, is_lost, job_key
from catalog.run.service import TERMINAL, Service, Video
from catalog.run.window import Window
from video.errors import PhotoTooLarge, PhotoTooSmall, UndecodablePhoto, UnsupportedPhotoType

T = TypeVar("T")

_PHOTO_ERRORS = (UnsupportedPhotoType, UndecodablePhoto, PhotoTooSmall, PhotoTooLarge)
_OF_THE_REQUEST = frozenset({"does_not_fit", *(error.code for error in _PHOTO_ERRORS)})
"""Codes of failed jobs that another request would not have had."""

_MEASURES = (
    "score",
    "subject_first",
    "subject_mean",
    "color_shift",
    "lpips_first",
    "lpips_mean",
    "flicker",
    "warp_error",
    "tracked",
    "motion",
)


@dataclass(frozen=True, slots=True)
class RowRunner:
    """What every row of a run is made with."""

    options: RunOptions
    service: Service
    photos: Photos
    output: RunOutput
    window: Window

    async def run(self, row: Row, folder: str, round_: int) -> ResultRow:
        """Never raises for what is wrong with the row: that is its result.

        Raises ServiceAway and NotAllowed. Any number of runs of the same row, here or in a driver
        that was killed, are one job of the service: its idempotency key is the row's number,
        and how often its failure was tried again (`round_`).
        """
        began, lost = time.time(), 0
        ended: dict[str, Video] = {}
        try:
            photo = await self.window.insist(lambda: self.photos.read(row.image_uri))
            while True:
                try:
                    video = await self._best_try(row, photo, round_, ended)
                    facts = _facts(video, ended.values()) | {"started_at": began}
                    return await self._result(row, video, folder, facts)
                except VideoLost:
                    lost += 1
                    if lost == NEW_JOBS:
                        raise
        except PhotoUnusable as e:
            return _failed(row, "invalid_request_error", e.code, e.message, began)
        except Refused as e:
            known = _facts(list(ended.values())[-1], ended.values()) if ended else {}
            return _failed(row, e.type, e.code, e.message, began, **known)

    async def _best_try(
        self, row: Row, photo: bytes, round_: int, ended: dict[str, Video]
    ) -> Video:
        """The first video that is good enough, else the best: the gate tries other seeds. `ended`
        gets every one that was asked for, by its id. Raises VideoLost."""
        best: Video | None = None
        for number in range(1 + self.options.quality_retries):
            video = await self._video(row, photo, number, round_, ended)
            if video["status"] != "completed" or _score(video) >= self.options.min_score:
                return video
            if best is None or _score(video) > _score(best):
                best = video
        assert best is not None
        return best

    async def _video(
        self, row: Row, photo: bytes, number: int, round_: int, ended: dict[str, Video]
    ) -> Video:
        """One job; another one where somebody cancelled that, it is not kept any longer, or its
        photo has been replaced since."""
        fields = self.options.fields(row, number)
        for again in range(NEW_JOBS):
            once = job_key(self.options.run_id, row.index, number, again, round_)
            try:
                video = await self._ended(fields, photo, once)
            except Refused as e:
                if e.code != "idempotency_conflict" or again == NEW_JOBS - 1:
                    raise
                continue
            ended[video["id"]] = video
            if not _is_lost(video):
                break
        return video

    async def _ended(self, fields: Mapping[str, str], photo: bytes, once: str) -> Video:
        answer = await self.window.insist(lambda: self.service.create(fields, photo, once))
        video_id = answer.video["id"]
        while answer.video["status"] not in TERMINAL:
            await asyncio.sleep(answer.poll_after_s)
            answer = await self._ask_about(video_id, lambda: self.service.get(video_id))
        return answer.video

    async def _ask_about(self, video_id: str, call: Callable[[], Awaitable[T]]) -> T:
        """Raises VideoLost where what the service refuses is no longer there."""
        try:
            return await self.window.insist(call)
        except Refused as e:
            if await self._is_there(video_id):
                raise
            raise VideoLost(e.type, e.code, e.message) from e

    async def _is_there(self, video_id: str) -> bool:
        try:
            answer = await self.window.insist(lambda: self.service.get(video_id))
        except Refused as e:
            return e.code != "video_not_found"
        return not _is_lost(answer.video)

    async def _result(
        self, row: Row, video: Video, folder: str, facts: Mapping[str, Any]
    ) -> ResultRow:
        if problem := self._problem(video):
            status, type_, code, message = problem
            error = {"error_type": type_, "error_code": code, "error_message": message}
            return _row(row, status, **error, **facts, finished_at=time.time())
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
            finished_at=time.time(),
        )

    def _problem(self, video: Video) -> tuple[RowStatus, str, str, str] | None:
        """Status, type, code and message of the error."""
        if video["status"] == "cancelled":
            return RowStatus.CANCELLED, "cancelled_error", "cancelled", "the job was cancelled"
        if video["status"] == "failed":
            code, message = video["error"]["code"], video["error"]["message"]
            type_ = "invalid_request_error" if code in _OF_THE_REQUEST else "server_error"
            return RowStatus.FAILED, type_, code, message
        if (score := _score(video)) < self.options.min_score:
            message = (
                f"the best of {1 + self.options.quality_retries} seeds scores {score:.2f},"
                f" {self.options.min_score:g} is asked for"
            )
            return RowStatus.FAILED, "quality_error", "quality_gate_failed", message
        return None

    async def _copy(self, video_id: str, variant: str, name: str, media_type: str) -> bytes:
        """Into the run's folder: what retention deletes in the service stays there."""
        content = await self._ask_about(video_id, lambda: self.service.content(video_id, variant))
        key, objects = self.output.key(name), self.output.objects
        await self.window.insist(lambda: asyncio.to_thread(objects.put, key, content, media_type))
        return content


def bad_row(row: BadRow) -> ResultRow:
    return _failed(row, "invalid_request_error", row.problem.code, str(row), None)


def _failed(
    row: Row | BadRow, type_: str, code: str, message: str, began: float | None, **facts: Any
) -> ResultRow:
    error = {"error_type": type_, "error_code": code, "error_message": message}
    moments = {"started_at": began, "finished_at": time.time()}
    return _row(row, RowStatus.FAILED, **error, **moments, **facts)


def _row(row: Row | BadRow, status: RowStatus, **facts: Any) -> ResultRow:
    return ResultRow(
        row=row.index, sku=row.sku, title=row.title, status=status, echoed=row.extra, **facts
    )


def _selected(video: Video) -> dict[str, Any]:
    """The candidate that is the video; empty before there is one."""
    return next((found for found in video["candidates"] if found["selected"]), {})


def _is_lost(video: Video) -> bool:
    return is_lost(video["status"], _selected(video).get("kept", False))


def _score(video: Video) -> float:
    """0 where nothing could be measured."""
    return _selected(video).get("score") or 0.0


def _spent(videos: Iterable[Video]) -> dict[str, Any]:
    """What a row has taken of GPUs: of all its videos, those that were not good enough included."""
    usages = [video["usage"] for video in videos if video["usage"]]
    if not usages:
        return {}
    costs = [usage["cost"] for usage in usages]
    return {
        "gpu_seconds": sum(usage["gpu_seconds"] for usage in usages),
        "cost": None if None in costs else sum(costs),
        "peak_vram_bytes": max(usage["peak_vram_bytes"] or 0 for usage in usages) or None,
    }


def _facts(video: Video, ended: Iterable[Video]) -> dict[str, Any]:
    """Columns of the result, as far as they are known for a video that ended so; `ended`: all that
    were asked for in the row's name."""
    width, height = map(int, video["size"].split("x"))
    selected, timings = _selected(video), dict(video["timings"])
    return {
        "video_id": video["id"],
        "attempts": video["attempt"],
        "downgrades": tuple(step["step"] for step in video["downgrades"]),
        "tier": video["tier"],
        "model": video["model"],
        "model_revision": video["model_revision"],
        "seed": selected.get("seed", video["seed"]),
        "width": width,
        "height": height,
        "frames": video["output_num_frames"],
        "fps": video["output_fps"],
        "seconds": float(video["seconds"]),
        "queue_s": timings.pop("queued", None),
        "timings": timings,
        "shared_with": video["shared_with"],
        **_spent(ended),
        **{name: selected.get(name) for name in _MEASURES},
    }
