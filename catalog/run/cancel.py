"""Cancelling a run: a file in its folder, which its driver looks for, wherever it runs; and then
its jobs."""

import asyncio
from contextlib import suppress
from functools import partial

from catalog.results.output import RunOutput
from catalog.run.errors import Refused
from catalog.run.service import LIVE, Service
from catalog.run.window import Window

_NAME = "cancelled.json"
_SETTLES_IN_S = 2.0
"""What a driver had on the wire when it was stopped is a job by then."""


def ask_to_cancel(output: RunOutput) -> None:
    """It lasts, so that no later driver of the run takes up its work either."""
    output.objects.put(output.key(_NAME), b"{}", "application/json")


def forget_cancelling(output: RunOutput) -> None:
    """For a run that is to go on."""
    output.objects.delete(output.key(_NAME))


def is_cancelled(output: RunOutput) -> bool:
    return output.objects.stat(output.key(_NAME)) is not None


async def cancel_jobs(service: Service, window: Window, run_id: str) -> bool:
    """All that the service knows of this run, whichever driver asked for them; says whether there
    were any. Raises ServiceAway and NotAllowed."""
    looks_in_vain, had_some = 0, False
    while looks_in_vain < 2:
        found = [
            video_id
            for status in LIVE
            for video_id in await window.insist(partial(service.some_of, run_id, status))
        ]
        for video_id in found:
            with suppress(Refused):  # deleted meanwhile
                await window.insist(partial(service.cancel, video_id))
        had_some = had_some or bool(found)
        looks_in_vain = 0 if found else looks_in_vain + 1
        if looks_in_vain == 1:
            await asyncio.sleep(_SETTLES_IN_S)
    return had_some
