"""Who of those that wait gets a slot of the replica: the Dispatcher's way, and first come first
served. No Ray runs; placement and slots are the Dispatcher's own code."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, cast

from benchmarks.arrivals import Asked
from benchmarks.models import published_architecture
from cluster.cost import CostModel
from cluster.ladder import Floor
from cluster.tiers import TierConfig
from deployments.dispatch.fleet import Fleet
from diffusion.model_folder import ModelConfig
from diffusion.params import Priority
from storage.jobs import Job, JobRequest, JobStatus, OutputParams


class Discipline(Protocol):
    def arrives(self, asked: Asked) -> None: ...

    def starts(self) -> Sequence[Asked]:
        """Those that get a slot now, in this order."""

    def steps(self, asked: Asked, step: int) -> None: ...

    def ends(self, asked: Asked) -> None: ...

    def priority(self, asked: Asked) -> Priority:
        """What the engine is told."""


class FirstComeFirstServed:
    """Knows no classes."""

    def __init__(self, slots: int):
        self._free = slots
        self._waiting: deque[Asked] = deque()

    def arrives(self, asked: Asked) -> None:
        self._waiting.append(asked)

    def starts(self) -> Sequence[Asked]:
        started = [self._waiting.popleft() for _ in range(min(self._free, len(self._waiting)))]
        self._free -= len(started)
        return started

    def steps(self, asked: Asked, step: int) -> None:
        pass

    def ends(self, asked: Asked) -> None:
        self._free += 1

    def priority(self, asked: Asked) -> Priority:
        return Priority.BATCH  # all alike: the engine then goes by arrival


class Dispatched:
    """What deployments.dispatcher does with a replica: the same Fleet, plan and slots."""

    def __init__(self, tier: TierConfig, ageing_s: float):
        cost = CostModel(published_architecture(), [tier], ModelConfig(source="none"), {})
        floor = Floor(area_px=1, num_frames=1, size_multiple=1)
        self._fleet = Fleet([tier], [cast(Any, _NoHandle())], cost, floor)
        self._ageing_s = ageing_s
        self._waiting: dict[str, Job] = {}
        self._asked: dict[str, Asked] = {}
        self._in_flight: dict[str, Job] = {}

    def arrives(self, asked: Asked) -> None:
        self._waiting[asked.id] = _job(asked)
        self._asked[asked.id] = asked

    def starts(self) -> Sequence[Asked]:
        waiting = list(self._waiting.values())
        plan, _ = self._fleet.plan(waiting, len(waiting), self._ageing_s)
        for job_id, tier in plan.starts.items():
            job = self._in_flight[job_id] = self._waiting.pop(job_id)
            self._fleet.enter(job, tier)
        return [self._asked[job_id] for job_id in plan.starts]

    def steps(self, asked: Asked, step: int) -> None:
        self._fleet.note_step(self._in_flight[asked.id].current_attempt, step)

    def ends(self, asked: Asked) -> None:
        self._fleet.leave(self._in_flight.pop(asked.id).current_attempt)

    def priority(self, asked: Asked) -> Priority:
        return asked.priority


class _NoHandle:
    """Stands for the denoisers, which are called directly here."""

    def options(self, **_: object) -> "_NoHandle":
        return self


def _job(asked: Asked) -> Job:
    request = JobRequest(
        id=asked.id,
        tenant="bench",
        model="none",
        model_revision="none",
        photo_key="none",
        photo_sha256="none",
        sampling=asked.params,
        output=OutputParams(fit="crop", fps=8, inbetweens=0),
        preset=asked.kind,
        priority=asked.priority,
    )
    return Job(request=request, status=JobStatus.QUEUED, created_at=time.time(), attempt=1)
