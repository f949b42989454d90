"""The state of the service in a few lines, from the metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from monitoring.status.prometheus import Alert, Prometheus, ScrapeTarget, Series, Window
from monitoring.status.units import formatted

_P95 = "histogram_quantile(0.95, sum by (le) (rate(ray_shopreel_job_duration_seconds_bucket[{w}])))"

_LINES: Sequence[tuple[str, str, str]] = (  # what, the expression, its unit
    ("queued", "max by (priority) (ray_shopreel_queue_depth)", "none"),
    ("waiting longest", "max by (priority) (ray_shopreel_queue_oldest_age_seconds)", "s"),
    ("in flight", "max by (tier) (ray_shopreel_jobs_in_flight)", "none"),
    ("replicas", "max by (tier) (ray_shopreel_tier_replicas)", "none"),
    ("GPU time ahead", "max by (tier) (ray_shopreel_backlog_gpu_seconds)", "s"),
    ("ended", "sum by (outcome) (increase(ray_shopreel_jobs_total[{w}]))", "none"),
    ("failed for", "sum by (code) (increase(ray_shopreel_job_failures_total[{w}])) > 0", "none"),
    ("refused for", "sum by (reason) (increase(ray_shopreel_jobs_refused_total[{w}])) > 0", "none"),
    ("job p95", _P95, "s"),
    ("lost results", "max(ray_shopreel_lost_results)", "none"),
    ("duplicate results", "max(ray_shopreel_duplicate_results)", "none"),
)


@dataclass(frozen=True, slots=True)
class Health:
    """Whether anything asks for a person."""

    alerts: Sequence[Alert]  # firing and pending
    rules: int  # alert rules that this Prometheus watches
    targets: Sequence[ScrapeTarget]

    @property
    def firing(self) -> Sequence[Alert]:
        return [alert for alert in self.alerts if alert.state == "firing"]

    @property
    def down(self) -> Sequence[ScrapeTarget]:
        return [target for target in self.targets if target.is_down]

    @property
    def headline(self) -> str:
        if self.firing:
            return f"{len(self.firing)} alerts fire" if self.firing[1:] else "1 alert fires"
        if self.down:
            return f"{len(self.down)} of {len(self.targets)} targets are down"
        if not self.targets:
            return "Nothing is scraped"
        return "No alert fires" if self.rules else "No alert rules are loaded"

    @property
    def color(self) -> str:
        """Of the headline."""
        if self.firing or self.down or not self.targets:
            return "red"
        return "green" if self.rules else "yellow"

    @property
    def targets_said(self) -> str:
        return f"{len(self.targets) - len(self.down)} of {len(self.targets)} targets up"

    @property
    def rules_said(self) -> str:
        return f"{self.rules} alert rules" if self.rules else "no alert rules in this Prometheus"


def read_health(prometheus: Prometheus) -> Health:
    """Raises PrometheusError."""
    return Health(prometheus.alerts(), prometheus.count_alert_rules(), prometheus.targets())


def read_digest(prometheus: Prometheus, window: Window) -> list[tuple[str, str]]:
    """(what, in words) of every figure; counts are over the window. Raises PrometheusError."""
    over = f"{window.length_s:.0f}s"
    return [
        (what, _said(prometheus.at(expr.format(w=over), window.end), unit))
        for what, expr, unit in _LINES
    ]


def _said(found: Sequence[Series], unit: str) -> str:
    words = []
    for series in found:
        ((_, value),) = series.points
        figure = f"{value:,.0f}" if unit == "none" else formatted(value, unit)
        words.append(" ".join((*series.labels.values(), figure)))
    return ", ".join(words) or "–"
