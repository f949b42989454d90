"""SIGTERM as a replica hears it, and what of Serve's own is needed then."""

import inspect
import signal
import subprocess
import sys
from dataclasses import fields

from ray.serve._private.common import ReplicaQueueLengthInfo
from ray.serve._private.replica import Replica, ReplicaActor

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


def test_serve_still_has_what_a_leaving_replica_replaces_and_calls() -> None:
    assert inspect.isasyncgenfunction(Replica.handle_request_with_rejection)
    assert inspect.iscoroutinefunction(Replica.check_health)
    assert isinstance(Replica.max_ongoing_requests, property)
    assert inspect.iscoroutinefunction(ReplicaActor.perform_graceful_shutdown)
    named = [field.name for field in fields(ReplicaQueueLengthInfo)]
    assert named == ["accepted", "num_ongoing_requests"]
