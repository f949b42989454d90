"""Results that are committed already, and jobs that wait for one which another job makes: the same
request costs no GPU twice."""

import asyncio
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from diffusion.params import Priority
from storage import keys
from storage.errors import ObjectNotFound, StoreUnavailable
from storage.jobs import Job, JobRequest, VideoFile
from storage.object_store import ObjectStore

_THREADS = 8
_PATIENCE_S = 10.0
_MOST_KNOWN = 10_000


class Results:
    def __init__(self, objects: ObjectStore):
        self._objects = objects
        # Threads of its own: a store that hangs must not hold those that renew leases.
        self._threads = ThreadPoolExecutor(_THREADS, "results")

    async def find(self, request: JobRequest) -> VideoFile | None:
        """Raises StoreUnavailable and StoreMisconfigured."""
        key = keys.result_key(request.tenant, request.result_id)
        read = asyncio.get_running_loop().run_in_executor(self._threads, self._objects.get, key)
        try:
            async with asyncio.timeout(_PATIENCE_S):  # wait_for may swallow a cancel
                return VideoFile.from_json(await read)
        except ObjectNotFound:
            return None
        except TimeoutError:
            raise StoreUnavailable(f"object store: no answer in {_PATIENCE_S:g} s") from None


class Twins:
    """Jobs with the same result id. One makes it; the others then find it."""

    def __init__(self) -> None:
        self._result_ids: dict[str, str] = {}  # by job: a request never changes, and hashing costs

    def without(self, waiting: Sequence[Job], in_flight: Iterable[Job]) -> list[Job]:
        """Those of `waiting`, in this order, whose result nobody makes yet. A person does not wait
        for a batch job, which may itself be paused for people."""
        if len(self._result_ids) > _MOST_KNOWN:
            self._result_ids.clear()
        makers: dict[str, Job] = {}
        for job in in_flight:
            if _may_pass(job, makers.get(self._result_id(job))):
                makers[self._result_id(job)] = job
        alone = []
        for job in waiting:
            maker = makers.get(self._result_id(job))
            # Its own attempt is no reason to wait: one that has lost its lease ends for nobody.
            if _may_pass(job, maker) or (maker and maker.id == job.id):
                makers[self._result_id(job)] = job
                alone.append(job)
        return alone

    def _result_id(self, job: Job) -> str:
        if job.id not in self._result_ids:
            self._result_ids[job.id] = job.request.result_id
        return self._result_ids[job.id]


def _may_pass(job: Job, maker: Job | None) -> bool:
    if maker is None:
        return True
    priorities = (job.request.priority, maker.request.priority)
    return priorities == (Priority.INTERACTIVE, Priority.BATCH)
