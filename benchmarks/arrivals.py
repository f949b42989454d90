"""Who asks for what and when: one seeded trace, played to every discipline."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diffusion.params import Priority, SamplingParams


@dataclass(frozen=True, slots=True)
class Asked:
    """A request on its way to a replica."""

    id: str
    at_s: float  # since the trace began
    kind: str  # for the report
    priority: Priority
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Source:
    """Requests of one kind, arriving as a Poisson process."""

    kind: str
    priority: Priority
    params: SamplingParams
    share: float  # of a replica's time that they ask for


def poisson(
    sources: Sequence[Source], alone_s: Mapping[str, float], lasting_s: float, seed: int
) -> list[Asked]:
    """Arrivals of `lasting_s` seconds in order. `alone_s`: what one of a kind takes a replica."""
    trace: list[Asked] = []
    for source in sources:
        dice = random.Random(f"{seed} {source.kind}")
        per_s = source.share / alone_s[source.kind]
        at_s = dice.expovariate(per_s)
        while at_s < lasting_s:
            name = f"{source.kind} {len(trace)}"
            trace.append(Asked(name, at_s, source.kind, source.priority, source.params))
            at_s += dice.expovariate(per_s)
    return sorted(trace, key=lambda asked: asked.at_s)
