"""Every stage of the contract, as a caller sees it over SSE while the real replicas are held up one
by one: at fail points, by a signal, or by other clips that have the UNet."""

import itertools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sseclient import SSEClient

from serve.client import Video
from storage.jobs import Stage
from tests.faults import fail_points
from tests.integration.live import ROOT, LiveCluster, write_config

pytestmark = pytest.mark.timeout(300)

PHOTO = ROOT / "examples" / "products" / "watch-steel.jpg"
CLIP: dict[str, Any] = {"size": "64x64", "num_frames": 8, "num_inference_steps": 20}
ENDLESS: dict[str, Any] = {"size": "256x256", "num_frames": 24, "num_inference_steps": 200}
PATIENCE_S = 90.0


class Stages:
    """A cluster whose replicas stand still where a prompt asks for it."""

    def __init__(self, live: LiveCluster, points: Path):
        self.live, self._points = live, points
        self._seeds = itertools.count(1)

    def create(self, order: dict[str, Any], holds: str = "", **fields: Any) -> str:
        acts = " ".join(f"hold@{point}" for point in holds.split())
        given = {"prompt": f"a watch turns {acts}", "seed": next(self._seeds), **order, **fields}
        with self.live.client() as client:
            video_id: str = client.create(PHOTO, **given)["id"]
        return video_id

    def cancel(self, video_id: str) -> None:
        with self.live.client() as client:
            client.cancel(video_id)

    def video(self, video_id: str) -> Video:
        with self.live.client() as client:
            return client.get(video_id)

    def let_go(self, video_id: str, point: str) -> None:
        fail_points.let_go(self._points, video_id, point)

    def until(self, video_id: str, met: Callable[[Video], bool]) -> Video:
        deadline = time.monotonic() + PATIENCE_S
        while not met(video := self.video(video_id)):
            assert time.monotonic() < deadline, video
            time.sleep(0.1)
        return video


class Listener:
    """All that the events of a video say."""

    def __init__(self, url: str, video_id: str):
        self.told: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._thread = threading.Thread(
            target=self._listen, args=(f"{url}/v1/videos/{video_id}/events",), daemon=True
        )
        self._thread.start()

    def until(self, where: str) -> None:
        """Return once it is there: a stage, or else a status."""
        with self._news:
            found = self._news.wait_for(lambda: where in self.way, PATIENCE_S)
        assert found, (where, self.told)

    @property
    def way(self) -> list[str]:
        """The statuses and, while it is in progress, the stages; each as often as it was entered.
        The Dispatcher's first word comes up to a beat after its lease."""
        places = [state["stage"] or state["status"] for state in self.told]
        return [place for place, _ in itertools.groupby(places) if place != "in_progress"]

    def first(self, stage: Stage) -> dict[str, Any]:
        return next(state for state in self.told if state["stage"] == stage)

    def _listen(self, url: str) -> None:
        with httpx2.Client(timeout=60, trust_env=False) as http, http.stream("GET", url) as stream:
            for event in SSEClient(stream.iter_bytes()).events():
                with self._news:
                    self.told.append(json.loads(event.data))
                    self._news.notify_all()


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stages]:
    folder = tmp_path_factory.mktemp("stages")
    points = folder / "points"
    points.mkdir()
    config = write_config(
        folder / "config.yaml",
        **{
            "import_path": "tests.faults.fail_points:build_app",
            "tiers.0.max_ongoing_requests": 2,
            "tiers.0.interactive_slots": 1,
            "tiers.0.engine": {"patience_s": 1000.0},  # whoever is passed waits until it is over
        },
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setitem(os.environ, fail_points.FOLDER_VARIABLE, str(points))
        with LiveCluster(folder / "data", config) as live:
            yield Stages(live, points)


def test_a_video_passes_every_stage_of_the_contract_and_none_twice(stages: Stages) -> None:
    measured = stages.create(CLIP)  # without which no end could be foreseen
    stages.until(measured, lambda video: video["status"] == "completed")
    others = [stages.create(ENDLESS) for _ in range(2)]  # in every slot
    for other in others:
        stages.until(other, lambda video: video["stage"] == "denoising")

    video_id = stages.create(CLIP, holds="denoising step encoding uploaded", priority="batch")
    listener = Listener(stages.live.url, video_id)
    listener.until("queued")
    stages.cancel(others[0])
    listener.until("encoding")
    stages.let_go(video_id, "denoising")
    listener.until("waiting_denoiser")
    stages.cancel(others[1])
    listener.until("denoising")
    decoder = stages.live.replica("Decoder")
    decoder.suspend()
    try:
        stages.let_go(video_id, "step")
        listener.until("decoding")
    finally:
        decoder.resume()
    listener.until("encoding_video")
    stages.let_go(video_id, "encoding")
    listener.until("storing")
    stages.let_go(video_id, "uploaded")
    listener.until("completed")

    elsewhere = (Stage.WAITING_STORAGE, Stage.RENDERING)  # of model camera alone
    way = [stage.value for stage in Stage if stage not in elsewhere]
    assert listener.way == ["queued", *way, "completed"]
    for told in ("progress", "step"):
        assert (values := [state[told] for state in listener.told]) == sorted(values), told
    behind = [listener.first(Stage(stage)) for stage in way[-3:]]
    assert [state["progress"] for state in behind] == [92, 95, 95]
    # Nothing is left but these stages; a denoising that was held up is no measure of its own rest.
    ahead = [state["eta_seconds"] for state in behind]
    assert ahead == sorted(ahead, reverse=True)
    assert stages.video(video_id)["timings"]["storing"] > 0


def test_a_batch_clip_waits_for_a_person_where_it_stands(stages: Stages) -> None:
    batch = stages.create(ENDLESS, priority="batch")
    stages.until(batch, lambda video: video["step"] > 0)
    person = stages.create(ENDLESS)
    waiting = stages.until(batch, lambda video: video["stage"] == "waiting_denoiser")
    assert waiting["step"] > 0
    stages.until(person, lambda video: video["step"] > 0)
    still = stages.video(batch)
    assert (still["stage"], still["progress"]) == ("waiting_denoiser", waiting["progress"])
    stages.cancel(person)
    again = stages.until(batch, lambda video: video["stage"] == "denoising")
    assert again["step"] >= waiting["step"]
    stages.until(batch, lambda video: video["step"] > waiting["step"])
    stages.cancel(batch)


def test_a_video_on_its_way_into_the_store_outlives_its_dispatcher(stages: Stages) -> None:
    """Nobody hears the encoder any more; what it commits is found once the lease has run out."""
    video_id = stages.create(CLIP, holds="encoding")
    stages.until(video_id, lambda video: video["stage"] == "encoding_video")
    stages.live.replica("Dispatcher").kill()
    stages.let_go(video_id, "encoding")
    video = stages.until(video_id, lambda video: video["status"] == "completed")
    assert video["attempt"] == 1
