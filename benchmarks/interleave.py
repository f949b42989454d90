"""Several works timed in turns, so that whatever else the machine does hits all of them alike."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence


def in_turns(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    settle: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Seconds of each work in each round, after a round that does not count.

    `settle` waits for what a work left running on its device; that belongs to its time. Every
    other round goes backwards, so that nobody always comes after the same neighbour.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in list(works.items())[:: -1 if number % 2 else 1]:
            begun = time.perf_counter()
            work()
            settle()
            if number:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def paired_ratio(seconds: Sequence[float], baseline: Sequence[float]) -> float:
    """Median of `seconds` over `baseline`, round by round."""
    return statistics.median(a / b for a, b in zip(seconds, baseline, strict=True))
