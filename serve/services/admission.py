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
        """Raises DoesNotFit when no tier has the memory for it, nor for the smaller clip that the
        caller allows."""
        fits = self.cost.tiers_for
        ladder = Ladder(request.sampling)
        if ladder.tiers(fits):
            return
        if not (request.may_downgrade and ladder.step_down(None, fits, self.floor)):
            raise DoesNotFit(request.sampling, self.cost.largest_that_fits(request.sampling))
