"""A caller who orders videos all the time and does not give up while the service is away."""

import time
from collections import Counter
from pathlib import Path
from threading import Event, Thread
from typing import Any, Self
from uuid import uuid4

import httpx2

_AGAIN_S = 0.25


class PatientCaller:
    """A context: orders one video after the other, each under an idempotency key of its own that
    it repeats until it has read an answer. Leaving ends it, after the order under way."""

    def __init__(self, url: str, photo: Path, pause_s: float, **fields: Any):
        self._form = {name: str(value) for name, value in fields.items()}
        self._photo = photo
        self._pause_s = pause_s
        self._http = httpx2.Client(base_url=url, timeout=10, trust_env=False)
        self._leaving = Event()
        self._thread = Thread(target=self._order_all, name="patient-caller")
        self.accepted: list[str] = []  # job ids, in order
        self.refused: list[str] = []  # answers that no repeating would change
        self.answers: Counter[str] = Counter()  # by status, or by what kept it from coming

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()
        self._http.close()

    def _order_all(self) -> None:
        while not self._leaving.is_set():
            self._order(len(self.accepted))
            self._leaving.wait(self._pause_s)

    def _order(self, seed: int) -> None:
        key = {"Idempotency-Key": uuid4().hex}
        while True:
            files = {"input_reference": (self._photo.name, self._photo.read_bytes())}
            form = {**self._form, "seed": str(seed)}  # one's own result, not that of the last order
            try:
                answer = self._http.post("/v1/videos", data=form, files=files, headers=key)
            except httpx2.TransportError as e:
                self.answers[type(e).__name__] += 1
            else:
                self.answers[str(answer.status_code)] += 1
                if answer.is_success:
                    return self.accepted.append(answer.json()["id"])
                # Serve's proxy answers 404 in its own words until it knows its routes again.
                if not answer.is_server_error and "error" in _json(answer):
                    return self.refused.append(f"{answer.status_code} {answer.text[:200]}")
            time.sleep(_AGAIN_S)


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        parsed: dict[str, Any] = answer.json()
    except ValueError:
        return {}
    return parsed
