"""Tests on real processes. Ray reads this when it is imported: the clusters listen on loopback."""

import os

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
