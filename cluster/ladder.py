"""What is left to try when a card's memory did not suffice: another tier, a smaller clip, and in
the end one that needs no card."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from diffusion.params import SamplingParams
from storage.jobs import NOTHING_GENERATED


@dataclass(frozen=True, slots=True)
class Floor:
    """How small a clip may become for a caller who allows it: the standard preset's."""

    area_px: int  # of one frame
    num_frames: int
    size_multiple: int  # px, of both sides

    def below(self, sampling: SamplingParams) -> tuple[SamplingParams, str, str] | None:
        """One step down: the smaller clip, the step's name, and what changed. Size goes first:
        fewer frames are a shorter clip."""
        width, height = sampling.width, sampling.height
        if width * height > self.area_px:
            ratio = (self.area_px / (width * height)) ** 0.5
            small = replace(
                sampling, width=self._side(width * ratio), height=self._side(height * ratio)
            )
            return small, "smaller_size", f"{width}x{height} -> {small.width}x{small.height}"
        if sampling.num_frames > self.num_frames:
            short = replace(sampling, num_frames=self.num_frames)
            return short, "fewer_frames", f"{sampling.num_frames} -> {self.num_frames} frames"
        return None

    def _side(self, px: float) -> int:
        # Down, so that the area is not above the floor again.
        return max(self.size_multiple, int(px / self.size_multiple + 1e-6) * self.size_multiple)


Fits = Callable[[SamplingParams], Collection[str]]
"""The tiers with the memory for a clip, by name."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where one job stands."""

    sampling: SamplingParams  # as it is tried now
    too_small: frozenset[str] = frozenset()  # tiers that ran out of memory with it

    def tiers(self, fits: Fits) -> list[str]:
        """The tiers worth trying now."""
        return [name for name in fits(self.sampling) if name not in self.too_small]

    def step_down(
        self,
        tier: str | None,
        fits: Fits,
        floor: Floor | None,
        last_clip: SamplingParams | None = None,
    ) -> "tuple[Ladder, str, str] | None":
        """After `tier` ran out of memory (None: no tier is to blame): the next thing to try, the
        rung's name and words for people. None when the job must fail; `floor` is None for callers
        who want this clip or none, `last_clip` for those who want nothing that is not generated.
        """
        if self.sampling.is_rendered:  # nothing takes less
            return None
        ladder = self if tier is None else replace(self, too_small=self.too_small | {tier})
        if tier is not None and (others := ladder.tiers(fits)):
            return ladder, "other_tier", f"{tier} ran out of memory; {', '.join(others)} may do"
        while floor and (step := floor.below(ladder.sampling)):
            ladder = Ladder(step[0])
            if ladder.tiers(fits):
                return ladder, step[1], step[2]
        if last_clip and fits(last_clip):
            return Ladder(last_clip), "camera_move", NOTHING_GENERATED
        return None
