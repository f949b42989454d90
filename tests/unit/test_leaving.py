"""What we lean on inside Ray, which its releases do not promise."""

import inspect

from ray._private.state import GlobalState
from ray.serve._private.replica import Replica


def test_ray_still_has_what_the_leave_notice_wraps_and_asks() -> None:
    assert inspect.iscoroutinefunction(Replica._perform_graceful_shutdown)
    assert list(inspect.signature(Replica._perform_graceful_shutdown).parameters) == ["self"]
    assert callable(GlobalState.get_draining_nodes)
