"""The `shopreel` command. Commands import what they need themselves: Ray reads the environment
when it is imported, and `shopreel --help` must not take seconds."""

from pathlib import Path
from typing import Annotated

import typer

from serve.commands import catalog_cli, grafana_cli, store_cli
from serve.commands.interrupts import interruptible
from serve.commands.options import (
    DEFAULT_DATA,
    DEFAULT_URL,
    ApiKey,
    AsJson,
    Category,
    ConfigFile,
    DataFolder,
    Model,
    Revision,
    Title,
)

app = typer.Typer(
    help="Product photos in, publishable product videos out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would eat [subject] + [action]
)
app.add_typer(catalog_cli.catalog, name="catalog")
app.add_typer(store_cli.keys, name="keys")
app.add_typer(store_cli.tenants, name="tenants")
app.add_typer(store_cli.jobs, name="jobs")
app.add_typer(grafana_cli.grafana, name="grafana")


@app.callback()
def _logging() -> None:
    from monitoring.logs import log_to_stderr

    log_to_stderr()


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
    prompt: Annotated[
        str | None, typer.Option(help="[subject] + [action] + [direction] + [ambience]")
    ] = None,
    category: Category = None,
    title: Title = None,
    preset: Annotated[
        str | None, typer.Option(help="preview, standard or high; default: the category's.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="camera: a camera move, and nothing generated.")
    ] = None,
    camera_motion: Annotated[
        str | None, typer.Option(help="zoom_in, pan_left, orbit_right, …: the camera's move.")
    ] = None,
    motion_strength: Annotated[
        float | None,
        typer.Option(help="Of a camera motion: 0 to 1, what is the model's to change."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same video.")] = None,
    n: Annotated[int, typer.Option(min=1, help="Candidates, of which the best is taken.")] = 1,
    select: Annotated[
        str, typer.Option(help="best, or all: every candidate is kept, and written to a file.")
    ] = "best",
    smooth: Annotated[bool, typer.Option(help="Interpolate to 24 frames/s or more.")] = False,
    out: Annotated[Path | None, typer.Option(help="MP4 file; default: a readable name.")] = None,
    url: Annotated[str, typer.Option(envvar="SHOPREEL_URL", help="The service.")] = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make one video through a running service, on this machine or another."""
    from serve.commands.generate import run_generate

    fields = {
        "prompt": prompt,
        "category": category,
        "title": title,
        "preset": preset,
        "model": model,
        "camera_motion": camera_motion,
        "motion_strength": motion_strength,
        "seed": seed,
        "n": n,
        "select": select,
        "enable_frame_interpolation": smooth,
    }
    run_generate(photo, fields, out, url, api_key, as_json)


@app.command()
def prompt(
    text: Annotated[
        str | None, typer.Argument(metavar="[PROMPT]", help="To be checked; else one is made.")
    ] = None,
    category: Category = None,
    title: Title = None,
    url: Annotated[
        str | None, typer.Option(help="Ask this service instead of the config file.")
    ] = None,
    api_key: ApiKey = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Show the prompt of a category and a title, or what is wrong with one. No GPU."""
    from serve.commands.prompt import run_prompt

    fields = {"prompt": text, "category": category, "title": title}
    run_prompt(fields, url, api_key, config, as_json)


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
    address: Annotated[
        str | None,
        typer.Option(help="http://HEAD:8265 of a running cluster: would a rollout there go well?"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check everything a start depends on, each with its fix. Exit code 1 if anything fails.

    With --address, or a RayService as --config: what a rollout depends on.
    """
    from serve.commands.doctor import run_doctor

    run_doctor(config, data, address, as_json)


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


@app.command()
def status(
    prometheus: Annotated[
        str, typer.Option(metavar="URL", help="Of a Prometheus that scrapes the cluster.")
    ] = "http://127.0.0.1:9090",
    html: Annotated[
        Path | None, typer.Option(help="Write every dashboard to this file, as one HTML page.")
    ] = None,
    hours: Annotated[float, typer.Option(min=0.05, max=24 * 31, help="To look back.")] = 6,
    scrape_seconds: Annotated[
        float, typer.Option(min=1, help="How often that Prometheus scrapes.")
    ] = 15,
    token_file: Annotated[
        Path | None, typer.Option(help="Holds a bearer token, where one is needed.")
    ] = None,
) -> None:
    """Show alerts and figures from a Prometheus. Exit code 3 if an alert fires."""
    from serve.commands.status import run_status

    run_status(prometheus, token_file, hours, scrape_seconds, html)


@app.command()
def top(
    config: ConfigFile = None,
    data: DataFolder = DEFAULT_DATA,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1,
    minutes: Annotated[float, typer.Option(min=0.1, help="To look back for what ended.")] = 10,
    once: Annotated[bool, typer.Option("--once", help="Print it and end.")] = False,
) -> None:
    """Watch queue, tiers, jobs in flight and failures, straight from the job table."""
    with interruptible():
        from serve.commands.top import run_top

        run_top(config, data, every, minutes, once)


@app.command("config")
def show_config(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Print every setting in force and where it came from."""
    from serve.commands.show_config import run_show_config

    run_show_config(config, as_json)
