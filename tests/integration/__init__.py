"""Tests on real processes. What Ray reads when it is imported must be set before: the address that
its daemons listen on, and the token of the cluster that tests connect to."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_FOLDER = Path(tempfile.mkdtemp(prefix="shopreel-tests-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

RAY_TOKEN = _FOLDER / "ray-token"
RAY_TOKEN.write_text("a-token-for-tests-only")
os.environ.update(
    RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    RAY_AUTH_MODE="token",
    RAY_ENABLE_AUTO_CONNECT="0",  # a handle that outlives ray.shutdown() would start a cluster
    RAY_AUTH_TOKEN_PATH=str(RAY_TOKEN),
)
