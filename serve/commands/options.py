"""Options that several `shopreel` commands share."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Serve config file; default cluster/local.yaml.")
]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder for videos, jobs, embedded S3 and logs.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Diffusers folder or hub id; beats the config file.")
]
Revision = Annotated[
    str | None, typer.Option("--revision", help="40-digit commit of a hub id given as --model.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

Category = Annotated[
    str | None, typer.Option(help="apparel, digital, home, food, portrait, watch, art, …")
]
Title = Annotated[str | None, typer.Option(help="Of the product; English, or simple Chinese.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="SHOPREEL_API_KEY", show_envvar=True, help="Where one is needed."),
]

DEFAULT_DATA = Path("shopreel-data")
DEFAULT_URL = "http://127.0.0.1:8200"
