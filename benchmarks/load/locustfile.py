"""The callers: locust users, one class per operation. `python -m locust -f THIS --headless Create`.

Every answer is written down with its start, so that whoever reads them leaves the warm-up out and
takes percentiles of the times themselves; locust's own are rounded.
"""

import json
import random
import time
import uuid
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task
from locust.env import Environment

from benchmarks.load.photos import form_of_a_new_photo

_PER_S = 1.0  # of one user; the number of users makes the rate

answers: list[tuple[float, float, str | None]] = []  # start in Unix s, ms, error


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--out", required=True, help="file for the answers, as JSON")
    parser.add_argument("--ids", help="file with the ids to ask for, one a line")


@events.request.add_listener  # type: ignore[untyped-decorator]
def _note(start_time: float, response_time: float, exception: object, **_: Any) -> None:
    answers.append((start_time, response_time, None if exception is None else str(exception)))


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def _write(environment: Environment, **_: Any) -> None:
    assert environment.parsed_options is not None
    Path(environment.parsed_options.out).write_text(json.dumps(answers))


class _Paced(FastHttpUser):
    abstract = True
    wait_time = constant_throughput(_PER_S)

    def on_start(self) -> None:
        time.sleep(random.random() / _PER_S)  # else all users would call at the same moment
        options = self.environment.parsed_options
        assert options is not None
        self.ids = Path(options.ids).read_text().split() if options.ids else []

    def create(self) -> None:
        media_type, body = form_of_a_new_photo()
        self.client.post(
            "/v1/videos",
            data=body,  # type: ignore[arg-type]  # it sends bytes as they are
            headers={"Content-Type": media_type, "Idempotency-Key": uuid.uuid4().hex},
        )


class Create(_Paced):
    @task
    def call(self) -> None:
        self.create()


class CreateAtOnce(_Paced):
    """The next one as soon as the last was answered."""

    wait_time = constant_throughput(1e6)

    @task
    def call(self) -> None:
        self.create()


class Get(_Paced):
    @task
    def call(self) -> None:
        self.client.get(f"/v1/videos/{random.choice(self.ids)}")


class List(_Paced):
    """A page of 20 from anywhere in the table."""

    @task
    def call(self) -> None:
        self.client.get(f"/v1/videos?after={random.choice(self.ids)}")
