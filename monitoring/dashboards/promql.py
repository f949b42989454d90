"""The PromQL that panels share. Names are those of monitoring/metrics.py, without Ray's prefix."""

from monitoring.dashboards.panel import Query

API_GOAL = 0.999
JOBS_GOAL = 0.99
IN_TIME_GOAL = 0.95
IN_TIME_S = 120  # a bucket of shopreel_job_duration_seconds

CREATION = 'route="/v1/videos", method="POST"'
"""Requests for videos. Polls are so many more that among them the loss of all of these hardly
shows."""

CALLERS_FAULTS = "image_.*|does_not_fit|deadline_exceeded"
"""Error codes of what callers asked for. A queue that is too slow for their deadlines shows as late
jobs."""


def metric(name: str, labels: str = "") -> str:
    """A series as Ray exports it."""
    return f"ray_shopreel_{name}{{{labels}}}" if labels else f"ray_shopreel_{name}"


def rate(name: str, by: str = "", labels: str = "", window: str = "$__rate_interval") -> str:
    """Per second, over the processes."""
    return f"sum{_by(by)} (rate({metric(name, labels)}[{window}]))"


def latest(name: str, by: str = "", labels: str = "") -> str:
    """A gauge that one process sets: for minutes after it moved, two processes have a value."""
    return f"max{_by(by)} ({metric(name, labels)})"


def quantile(q: float, name: str, by: str = "") -> str:
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q}, {rate(f'{name}_bucket', labels)})"


def quantiles(name: str, by: str = "") -> list[Query]:
    legend = f" {{{{{by}}}}}" if by else ""
    return [Query(quantile(q, name, by), f"p{q * 100:.0f}{legend}") for q in (0.5, 0.95, 0.99)]


def or_zero(expr: str) -> str:
    """For a label that no series has yet: without it the whole sum would be empty."""
    return f"({expr} or vector(0))"


def api_errors(window: str, of: str = "") -> str:
    """Share of HTTP requests that failed by our fault; load shed on purpose has its own panel."""
    labels = ", ".join(filter(None, (of, 'code=~"5..", shed!="yes"')))
    bad = rate("http_requests_total", labels=labels, window=window)
    return f"{or_zero(bad)} / {rate('http_requests_total', labels=of, window=window)}"


def failed_jobs(window: str) -> str:
    """Share of jobs that failed, callers' faults apart."""
    bad = rate("job_failures_total", labels=f'code!~"{CALLERS_FAULTS}"', window=window)
    good = rate("jobs_total", labels='outcome="completed"', window=window)
    return f"{or_zero(bad)} / ({or_zero(bad)} + {or_zero(good)})"


def late_jobs(window: str) -> str:
    """Share of interactive videos that were visible after IN_TIME_S."""
    labels = 'priority="interactive"'
    in_time = f'{labels}, le="{IN_TIME_S:.1f}"'
    done = rate("job_duration_seconds_count", labels=labels, window=window)
    return f"1 - {rate('job_duration_seconds_bucket', labels=in_time, window=window)} / {done}"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""
