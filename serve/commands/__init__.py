"""One file per `shopreel` command."""

from pathlib import Path

LOCAL_CONFIG = Path(__file__).parents[2] / "cluster" / "local.yaml"
"""The default of --config, found from any working directory."""
EXAMPLES = Path(__file__).parents[2] / "examples" / "products"
