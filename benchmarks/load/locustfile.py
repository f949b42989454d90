"""The callers: locust users, one class per operation. `python -m locust -f THIS --headless Create`.

With `--rate` the calls arrive as a Poisson process, which is what many callers who know nothing of
each other make: whichever user is free takes the next arrival, and an answer's time counts from
when its call was due, so that a slow answer delays no other call's clock. (Locust's own pacing
gathers its users: 100 of them at one call a second all fired within 200 ms.) Every answer is
written down with that moment, so that whoever reads them leaves the warm-up out and takes
percentiles of the times themselves; locust's own are rounded.
"""

import json
import random
import time
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from benchmarks.load.photos import form_of_a_new_photo

answers: list[tuple[float, float, str | None]] = []  # due in Unix s, ms from then on, error


class Arrivals:
    def __init__(self, rate: float | None):
        self._rate = rate  # 1/s; None: at once
        self._next = time.time()

    def take(self) -> float:
        """When the next call is due, Unix seconds; waits until then."""
        if self._rate is None:
            return time.time()
        due = self._next
        self._next += random.expovariate(self._rate)
        time.sleep(max(0.0, due - time.time()))
        return due


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="file for the answers, as JSON")
    parser.add_argument("--ids", help="file with the ids to ask for, one a line")
    parser.add_argument("--rate", type=float, help="calls a second; without: one after another")


@events.request.add_listener  # type: ignore[untyped-decorator]
def _note(
    start_time: float, response_time: float, exception: object, context: dict[str, float], **_: Any
) -> None:
    due = context["due"]
    error = None if exception is None else str(exception)
    answers.append((due, 1e3 * (start_time - due) + response_time, error))


@events.init.add_listener  # type: ignore[untyped-decorator]
def _arrivals(environment: Environment, **_: Any) -> None:
    assert environment.parsed_options is not None
    _Caller.arrivals = Arrivals(environment.parsed_options.rate)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _write(environment: Environment, **_: Any) -> None:
    assert environment.parsed_options is not None
    Path(environment.parsed_options.out).write_text(json.dumps(answers))


class _Caller(FastHttpUser):
    abstract = True
    wait_time = constant(0)  # the arrivals make it
    arrivals: Arrivals

    def on_start(self) -> None:
        options = self.environment.parsed_options
        assert options is not None
        self.ids = Path(options.ids).read_text().split() if options.ids else []


class Create(_Caller):
    @task
    def call(self) -> None:
        media_type, body = form_of_a_new_photo()
        self.client.post(
            "/v1/videos",
            data=body,  # type: ignore[arg-type]  # it sends bytes as they are
            headers={"Content-Type": media_type, "Idempotency-Key": uuid.uuid4().hex},
            context={"due": self.arrivals.take()},
        )


class Get(_Caller):
    @task
    def call(self) -> None:
        video_id = random.choice(self.ids)
        self.client.get(f"/v1/videos/{video_id}", context={"due": self.arrivals.take()})


class List(_Caller):
    """A page of 20 from anywhere in the table."""

    @task
    def call(self) -> None:
        after = random.choice(self.ids)
        self.client.get(f"/v1/videos?after={after}", context={"due": self.arrivals.take()})
