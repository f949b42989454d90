"""SIGTERM as a replica hears it, and what of Serve's own is needed then."""

import inspect
import signal
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from ray.serve._private.common import ReplicaQueueLengthInfo
from ray.serve._private.replica import Replica, ReplicaActor

from deployments import sigterm
from monitoring import tracing
from monitoring.tracing import span

# As in a replica: Python's handler is another's, which would wait, and the main thread is not ours.
REPLICA = """
import os, signal, threading, time
from deployments.sigterm import on_sigterm, told_to_end

def another() -> None:
    print("another", flush=True)
    time.sleep(60)

def act() -> None:
    print("told", told_to_end(), flush=True)
    time.sleep(0.5)
    os._exit(7)

signal.signal(signal.SIGTERM, lambda *_: another())
listening = threading.Thread(target=on_sigterm, args=(act,))
listening.start()
listening.join()
print("untold", not told_to_end(), flush=True)
time.sleep(60)
"""


def test_sigterm_is_heard_beside_the_main_thread_once_and_by_nobody_else() -> None:
    child = subprocess.Popen([sys.executable, "-c", REPLICA], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "untold True\n"
        child.terminate()
        assert child.stdout.readline() == "told True\n"
        child.send_signal(signal.SIGTERM)
        assert child.wait(30) == 7
        assert child.stdout.read() == ""
    finally:
        child.kill()
        child.communicate()


def test_a_process_that_it_starts_ends_by_sigterm_as_any_other() -> None:
    code = """
import subprocess, sys
from deployments.sigterm import on_sigterm, told_to_end
on_sigterm(lambda: None)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
child.terminate()
print(child.wait(30), told_to_end())
"""
    told = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True, timeout=60
    )
    assert told.stdout == f"{-signal.SIGTERM} False\n"


class Leaving:
    """Ends what it has, and a span with it."""

    perform_graceful_shutdown: Any

    def __init__(self) -> None:
        self.perform_graceful_shutdown = self

    def remote(self) -> None:
        with span("the last", None):
            pass


def test_the_last_spans_are_sent_before_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_tracer", "_provider"):
        monkeypatch.setattr(tracing, name, getattr(tracing, name))
    # None but the last words would send them.
    monkeypatch.setattr(tracing, "_EXPORT_EVERY_MS", 3_600_000)
    monkeypatch.setattr(sigterm, "_turn_away", lambda: None)
    monkeypatch.setattr("deployments.sigterm.ray.get", lambda ended, timeout: ended)
    exporter = InMemorySpanExporter()
    provider = tracing.trace_to(exporter, "VideoAPI", "r1")
    try:
        sigterm._finish(Leaving(), grace_s=1.0)
        assert [sent.name for sent in exporter.get_finished_spans()] == ["the last"]
    finally:
        provider.shutdown()


def test_serve_still_has_what_a_leaving_replica_replaces_and_calls() -> None:
    assert inspect.isasyncgenfunction(Replica.handle_request_with_rejection)
    assert inspect.iscoroutinefunction(Replica.check_health)
    assert isinstance(Replica.max_ongoing_requests, property)
    assert inspect.iscoroutinefunction(ReplicaActor.perform_graceful_shutdown)
    named = [field.name for field in fields(ReplicaQueueLengthInfo)]
    assert named == ["accepted", "num_ongoing_requests"]
