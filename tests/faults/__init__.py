"""Faults put into real processes, one row of the fault table a test; what they cost is counted in
the stores. Ray's environment is that of the integration tests, set before Ray is imported."""

import os

from tests.integration import RAY_TOKEN

os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    TRANSFORMERS_VERBOSITY="error",
    DIFFUSERS_VERBOSITY="error",
)

__all__ = ["RAY_TOKEN"]
