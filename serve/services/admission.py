"""Whether a request can be made on this cluster at all, asked before any work is done."""

from dataclasses import dataclass

from cluster.cost import CostModel, DoesNotFit
from cluster.ladder import Floor, Ladder
from storage.jobs import JobRequest


@dataclass(frozen=True)
class Admission:
    cost: CostModel
    floor: Floor

    def check(self, request: JobRequest) -> None:
        """Raises DoesNotFit when no tier has the memory for it, nor for the smaller clip or the
        camera move that the caller allows."""
        fits = self.cost.tiers_for
        ladder = Ladder(request.sampling)
        if ladder.tiers(fits):
            return
        floor = self.floor if request.may_downgrade else None
        if not ladder.step_down(None, fits, floor, request.last_clip):
            raise DoesNotFit(request.sampling, self.cost.largest_that_fits(request.sampling))
