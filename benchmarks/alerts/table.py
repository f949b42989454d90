"""The alerts' figures as the table of docs/alerts.md."""

from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.alerts.rules import Alert

HEAD = (
    "| alert | fault | times ÷ | true after | fired after | as shipped |",
    "|---|---|---|---|---|---|",
)


def markdown(figures: Mapping[str, Mapping[str, Any]], alerts: Iterable[Alert]) -> str:
    """Of each of the `alerts` as they are now, in their order. What was recorded of another
    expression says so."""
    return "\n".join([*HEAD, *(_row(alert, figures.get(alert.name)) for alert in alerts)])


def is_measured(alert: Alert, figures: Mapping[str, Any] | None) -> bool:
    """It was made to fire, by the expression that it has now."""
    if figures is None or "not_injected" in figures:
        return False
    return (figures["expr"], figures["for_s"]) == (alert.expr, alert.for_s)


def _row(alert: Alert, figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        cells = ["*not measured: newer than the recorded run*", "", "", ""]
    elif "not_injected" in figures:
        cells = [f"*not injected: {figures['not_injected']}*", "", "", ""]
    else:
        seen = (f"{figures[f'{which}_after_s']:.0f} s" for which in ("true", "fired"))
        changed = "" if is_measured(alert, figures) else f" *({_CHANGED})*"
        cells = [f"{figures['fault']}{changed}", f"{figures['divided_by']:g}", *seen]
    shipped = f"{_words(alert.true_after_s)} + {_words(alert.for_s)}"
    link = f"[{alert.name}](operations.md#{alert.name.lower()})"
    return "| " + " | ".join([link, *cells, shipped]) + " |"


_CHANGED = "expression changed since; not measured again"


def _words(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
