"""`shopreel grafana push`: folder, data source, dashboards and alert rules of a Grafana."""

from collections import Counter
from pathlib import Path

import typer

_MISSING = (
    "error: grafana-client is not installed here. Its dependency urllib3-future would replace the"
    " urllib3 of everything else, unless it is built without: URLLIB3_NO_OVERRIDE=1 pip install"
    " --no-binary urllib3-future --constraint constraints.txt -e '.[grafana]'; `make install` does"
)
_COLORS = {"+": typer.colors.GREEN, "-": typer.colors.RED, "@": typer.colors.CYAN}


def run_push(
    url: str,
    token_file: Path,
    prometheus_url: str | None,
    data_source: str | None,
    scrape_interval: str,
    diff: bool,
) -> None:
    if (prometheus_url is None) == (data_source is None):
        _fail("give one of --prometheus, for a new data source, and --datasource, for yours", 2)
    try:
        from monitoring.grafana.errors import GrafanaError
        from monitoring.grafana.push import compare, connect, everything
    except ModuleNotFoundError as e:
        if e.name != "grafana_client":
            raise
        typer.echo(_MISSING, err=True)
        raise typer.Exit(1) from None
    try:
        api = connect(url, _token(token_file))
        changes = list(compare(everything(api, prometheus_url, data_source, scrape_interval)))
        if diff:
            _show("\n".join(change.diff for change in changes if change.diff))
            raise typer.Exit(3 if any(change.diff for change in changes) else 0)
        for change in changes:
            if change.diff:
                change.make()
                typer.echo(str(change))
    except (GrafanaError, ValueError) as e:
        _fail(str(e), 1)
    done = Counter(change.action for change in changes)
    typer.echo(f"{done['create']} created, {done['update']} updated, {done['keep']} kept", err=True)


def _token(file: Path) -> str:
    """Raises ValueError."""
    try:
        token = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as e:
        raise ValueError(f"the token cannot be read: {e}") from e
    if not token or len(token.split()) > 1:
        raise ValueError(f"{file} must hold one token and nothing else")
    return token


def _show(diff: str) -> None:
    for line in diff.splitlines():
        typer.secho(line, fg=_COLORS.get(line[:1]))


def _fail(message: str, code: int) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)
