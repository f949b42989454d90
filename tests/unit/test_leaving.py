"""What we lean on inside Ray, which its releases do not promise."""

import inspect
import signal
import subprocess
import sys

from ray._private.state import GlobalState
from ray.serve._private.replica import Replica


def test_ray_still_has_what_the_leave_notice_wraps_and_asks() -> None:
    assert inspect.iscoroutinefunction(Replica._perform_graceful_shutdown)
    assert list(inspect.signature(Replica._perform_graceful_shutdown).parameters) == ["self"]
    assert callable(GlobalState.get_draining_nodes)


def test_sigterm_ends_a_process_whose_handler_would_wait() -> None:
    code = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: time.sleep(60))
from deployments.leaving import end_on_sigterm
end_on_sigterm()
print(flush=True)
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        child.terminate()
        assert child.wait(30) == -signal.SIGTERM
    finally:
        child.kill()
        child.communicate()
