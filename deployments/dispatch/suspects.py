"""Jobs that may be what ends their workers: kept apart, so that one that does takes no other along.

A replica that dies has several clips. Those that have got further since they last lost a worker
share the fate of another; the rest are suspects. One suspect runs at a time, the least suspect
first: the innocent get through, and who kills its worker alone has used up its attempts.
"""

from collections.abc import Collection, Iterable, Sequence

from storage.jobs import Job


class Suspects:
    def __init__(self) -> None:
        self._furthest: dict[str, int] = {}  # denoising step at which a job lost its worker
        self._losses: dict[str, int] = {}  # of a suspect, since it last got further

    def lost(self, job_id: str, step: int) -> bool:
        """Its worker died when it was at `step`; whether it is a suspect now."""
        further = step > self._furthest.get(job_id, 0)
        self._furthest[job_id] = max(step, self._furthest.get(job_id, 0))
        if further:
            self._losses.pop(job_id, None)
            return False
        self._losses[job_id] = self._losses.get(job_id, 0) + 1
        return True

    def forget(self, job_id: str) -> None:
        """The job has ended."""
        self._furthest.pop(job_id, None)
        self._losses.pop(job_id, None)

    def without(self, waiting: Sequence[Job], in_flight: Iterable[Job]) -> list[Job]:
        """Of `waiting`, in this order, those that may run now: all but suspects, and of these the
        least suspect one while no other is under way."""
        suspects = [job.id for job in waiting if job.id in self._losses]
        under_way = any(job.id in self._losses for job in in_flight)
        next_one = None if under_way or not suspects else self._least(suspects)
        return [job for job in waiting if job.id not in self._losses or job.id == next_one]

    def _least(self, suspects: Collection[str]) -> str:
        return min(suspects, key=lambda job_id: self._losses[job_id])
