"""The `shopreel` command. Commands import what they need themselves: Ray reads the environment
when it is imported, and `shopreel --help` must not take seconds."""

from pathlib import Path
from typing import Annotated

import typer

from serve.commands.interrupts import interruptible

app = typer.Typer(
    help="Product photos in, publishable product videos out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would eat [subject] + [action]
)

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

DEFAULT_DATA = Path("shopreel-data")
DEFAULT_URL = "http://127.0.0.1:8200"


@app.command()
def up(
    config: ConfigFile = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="HTTP port; default: the file's.")
    ] = None,
    data: DataFolder = DEFAULT_DATA,
    model: Model = None,
    revision: Revision = None,
) -> None:
    """Run a one-machine cluster in the foreground: Ray, Serve, S3 and the job table."""
    with interruptible():
        from serve.commands.up import run_up

        run_up(config, port, data, model, revision)


@app.command()
def generate(
    photo: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="JPEG, PNG or WebP.")],
    prompt: Annotated[str, typer.Option(help="[subject] + [action] + [direction] + [ambience]")],
    preset: Annotated[str, typer.Option(help="preview, standard or high.")] = "standard",
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    smooth: Annotated[bool, typer.Option(help="Interpolate to 24 frames/s or more.")] = False,
    out: Annotated[Path | None, typer.Option(help="MP4 file; default: a readable name.")] = None,
    url: Annotated[str, typer.Option(envvar="SHOPREEL_URL", help="The service.")] = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Make one video through the running service."""
    from serve.commands.generate import run_generate

    run_generate(photo, prompt, preset, seed, smooth, out, url, as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos and sheets.")] = Path(
        "shopreel-demo"
    ),
    config: ConfigFile = None,
    model: Model = None,
    revision: Revision = None,
    preset: Annotated[str, typer.Option(help="preview, standard or high.")] = "standard",
) -> None:
    """Bring a cluster up, make a video of every example photo, show them, bring it down."""
    with interruptible():
        from serve.commands.demo import run_demo

        run_demo(out, config, model, revision, preset)


@app.command()
def doctor(
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    as_json: AsJson = False,
) -> None:
    """Check everything a start depends on, each with its fix. Exit code 1 if anything fails."""
    from serve.commands.doctor import run_doctor

    run_doctor(config, data, as_json)


@app.command()
def calibrate(
    data: DataFolder = DEFAULT_DATA,
    tier: Annotated[
        list[str] | None, typer.Option("--tier", help="Only this one; may be repeated.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="HOST:PORT of a Ray cluster that `up` did not start.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what each tier of a running cluster sustains; it counts from the next start on."""
    with interruptible():
        from serve.commands.calibrate import run_calibrate

        run_calibrate(data, address, tier or [], as_json)


@app.command("config")
def show_config(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from."""
    from serve.commands.show_config import run_show_config

    run_show_config(config, as_json)
