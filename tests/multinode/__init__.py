"""Tests on several nodes, which are processes of this machine with GPU counts and labels that Ray
is told. A process of their own runs them: Ray serves one cluster per process. What Ray reads when
it is imported must be set before."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# Ray's sockets live in here, and a socket's path may have 107 bytes.
SCRATCH = Path(tempfile.mkdtemp(prefix="reel-"))
atexit.register(shutil.rmtree, SCRATCH, ignore_errors=True)
(SCRATCH / "ray").mkdir()  # ray.cluster_utils writes its address there
(SCRATCH / "token").write_text("a-token-for-tests-only")
tempfile.tempdir = str(SCRATCH)
os.environ.update(
    TMPDIR=str(SCRATCH),
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_AUTH_MODE="token",
    RAY_ENABLE_AUTO_CONNECT="0",  # a handle that outlives ray.shutdown() would start a cluster
    RAY_AUTH_TOKEN_PATH=str(SCRATCH / "token"),
    RAY_USAGE_STATS_ENABLED="0",
    RAY_SERVE_LOG_TO_STDERR="0",
    RAY_DISABLE_FAILURE_SIGNAL_HANDLER="1",
    # How soon the head takes a silent node for lost; Ray's default is a minute.
    RAY_health_check_initial_delay_ms="1000",
    RAY_health_check_period_ms="1000",
    RAY_health_check_timeout_ms="2000",
    RAY_health_check_failure_threshold="4",
    TRANSFORMERS_VERBOSITY="error",
    DIFFUSERS_VERBOSITY="error",
)
