"""Whose turn it is: which requests take part in the next UNet call. Pure: no torch, no clock."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from diffusion.params import Priority


@dataclass(frozen=True, slots=True)
class Turn:
    """A live request as the choice sees it. Times in seconds of one clock."""

    request_id: str
    bucket: Hashable  # rows of one call must agree in it
    rows: int  # of its next step
    priority: Priority
    arrived: float
    waits_since: float  # its last step, or its arrival
    deadline: float | None = None


def choose(
    turns: Iterable[Turn],
    max_rows: Callable[[Hashable], int],
    now: float,
    patience_s: float,
    mixed: bool = False,
) -> Sequence[Turn]:
    """Those who step now: of one bucket, and together at most `max_rows` of it.

    Interactive before batch, then by deadline, then by arrival, so that an interactive request that
    joins is in the very next call. But whoever has waited `patience_s` for a step gets this one:
    nobody starves, whatever arrives. A request that is alone larger than `max_rows` runs alone.
    Batch rows join a call of interactive ones only if `mixed`: one clip fills a large card, and
    every further row makes the call longer for who waits.
    """
    waiting = sorted(turns, key=lambda turn: _rank(turn, now, patience_s))
    if not waiting:
        return ()
    first, *others = waiting
    chosen, room = [first], max_rows(first.bucket) - first.rows
    for turn in others:
        slows = first.priority is Priority.INTERACTIVE and turn.priority is Priority.BATCH
        if turn.bucket == first.bucket and turn.rows <= room and (mixed or not slows):
            chosen.append(turn)
            room -= turn.rows
    return chosen


def _rank(turn: Turn, now: float, patience_s: float) -> tuple[float, ...]:
    if now - turn.waits_since >= patience_s:
        return (0, turn.waits_since)
    deadline = float("inf") if turn.deadline is None else turn.deadline
    return (1, turn.priority is Priority.BATCH, deadline, turn.arrived)
