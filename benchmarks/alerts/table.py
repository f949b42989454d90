"""The alerts' figures as the table of docs/alerts.md."""

from collections.abc import Mapping
from typing import Any

HEAD = (
    "| alert | fault | times ÷ | true after | fired after | as shipped |",
    "|---|---|---|---|---|---|",
)


def markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Of each alert, in the order given."""
    return "\n".join([*HEAD, *(_row(name, alert) for name, alert in figures.items())])


def _row(name: str, alert: Mapping[str, Any]) -> str:
    shipped = f"{_words(alert['true_after_s_as_shipped'])} + {_words(alert['for_s'])}"
    if "not_injected" in alert:
        cells = [f"*not injected: {alert['not_injected']}*", "", "", ""]
    else:
        seen = (f"{alert[f'{which}_after_s']:.0f} s" for which in ("true", "fired"))
        cells = [alert["fault"], f"{alert['divided_by']:g}", *seen]
    link = f"[{name}](operations.md#{name.lower()})"
    return "| " + " | ".join([link, *cells, shipped]) + " |"


def _words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
