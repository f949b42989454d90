"""What was foreseen for every attempt, and how far off that was; what the API foresees by."""

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from cluster.eta import Snapshot, eta_s
from deployments.dispatch.fleet import Fleet
from monitoring import metrics
from storage.jobs import Attempt, Job, Stage

log = logging.getLogger(__name__)

_NEWEST_WEIGHT = 0.2
_PREDICTIONS = 100
_AFTER = {
    Stage.ENCODING: Stage.WAITING_DENOISER,
    Stage.DECODING: Stage.ENCODING_VIDEO,
    Stage.ENCODING_VIDEO: Stage.STORING,
}


@dataclass(slots=True)
class _Course:
    """One attempt. Times in Unix seconds."""

    leased_at: float
    predicted_at: float | None
    stage: Stage
    entered_at: float
    frames_share: float  # CostModel.encode_share


class Foresight:
    """Learns how long the stages beside the denoising take, waiting for a replica included."""

    def __init__(self, fleet: Fleet, clock: Callable[[], float] = time.time):
        self._fleet, self._clock = fleet, clock
        self._courses: dict[Attempt, _Course] = {}
        self._stage_s: dict[Stage, float] = {}
        self._errors = deque[float](maxlen=_PREDICTIONS)

    def resume(self, published: str) -> None:
        """Begin with what a Dispatcher before us had learned."""
        try:
            self._stage_s.update(Snapshot.from_json(published).stage_s)
        except ValueError:
            log.warning("the last snapshot is of another version", exc_info=True)

    def begin(self, job: Job) -> None:
        """The job was leased, and has its slot."""
        now = self._clock()
        left_s = eta_s(job, self.snapshot(), self._fleet.cost, None, now)
        predicted_at = None if left_s is None else now + left_s
        share = self._fleet.cost.encode_share(job.request.sampling)
        self._courses[job.current_attempt] = _Course(now, predicted_at, Stage.ENCODING, now, share)

    def predicted_at(self, attempt: Attempt) -> float | None:
        """When it should end, as foreseen when it was leased; Unix seconds."""
        course = self._courses.get(attempt)
        return None if course is None else course.predicted_at

    def enter(self, attempt: Attempt, stage: Stage) -> None:
        """The attempt is in this stage (or still is)."""
        course, now = self._courses[attempt], self._clock()
        if stage is course.stage:
            return
        if _AFTER.get(course.stage) is stage:
            seconds = now - course.entered_at
            if course.stage is Stage.ENCODING:  # of text and photo, which all clips have
                seconds -= course.frames_share * self._stage_s.get(Stage.DECODING, 0.0)
            self._learn(course.stage, max(0.0, seconds))
        course.stage, course.entered_at = stage, now

    def hold_up(self, attempt: Attempt) -> None:
        """It waits for a denoiser: nothing can be learned of its encoding."""
        course = self._courses[attempt]
        course.stage, course.entered_at = Stage.WAITING_DENOISER, self._clock()

    def completed(self, attempt: Attempt) -> None:
        """It made its video: measure how far off the prediction was."""
        course, now = self._courses[attempt], self._clock()
        if course.stage is Stage.STORING:
            self._learn(course.stage, now - course.entered_at)
        if course.predicted_at is not None:
            real_s = now - course.leased_at
            error = abs(now - course.predicted_at) / real_s
            self._errors.append(error)
            metrics.ETA_ERROR.observe(error)

    def forget(self, attempt: Attempt) -> None:
        self._courses.pop(attempt, None)

    def snapshot(self) -> Snapshot:
        error = median(self._errors) if self._errors else None
        return Snapshot(self._fleet.tier_states(), dict(self._stage_s), error)

    def _learn(self, stage: Stage, seconds: float) -> None:
        before = self._stage_s.get(stage, seconds)
        self._stage_s[stage] = before + _NEWEST_WEIGHT * (seconds - before)
