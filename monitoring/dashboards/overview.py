"""Is the service well? Goals and what is left of their budgets, then the golden signals."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import (
    API_GOAL,
    CREATION,
    IN_TIME_GOAL,
    IN_TIME_S,
    JOBS_GOAL,
    api_errors,
    failed_jobs,
    late_jobs,
    latest,
    quantiles,
    rate,
)

_WINDOWS = ("5m", "1h", "6h")
_PAGE_AT = 14.4
"""Times the budget's pace: 2 % of 30 days' budget within an hour (Google's SRE workbook, ch. 5)."""


def _burn(title: str, share: dict[str, str], goal: float, description: str) -> Panel:
    budget = 1 - goal
    return Panel(
        title,
        "none",
        [Query(f"({expr}) / {budget:.3g}", window) for window, expr in share.items()],
        f"{description} 1 uses up the budget of 30 days in 30 days; {_PAGE_AT} over 1 h pages.",
        width=6,
        red_above=_PAGE_AT,
    )


OVERVIEW = Dashboard(
    "shopreel-overview",
    "Shopreel / Overview",
    "Goals of the service, how fast their error budgets burn, and the golden signals.",
    [
        Row(
            "Goals, over the time shown",
            [
                Panel(
                    "API requests served",
                    "percentunit",
                    [Query(f"1 - {api_errors('$__range')}", "served")],
                    f"Not answered by a 5xx; goal {API_GOAL:.1%}. Load shed on purpose by a 503"
                    " counts under Refused instead.",
                    kind="stat",
                    width=4,
                    red_below=API_GOAL,
                ),
                Panel(
                    "Jobs completed",
                    "percentunit",
                    [Query(f"1 - {failed_jobs('$__range')}", "completed")],
                    f"Of those that ended, callers' faults apart; goal {JOBS_GOAL:.0%}.",
                    kind="stat",
                    width=4,
                    red_below=JOBS_GOAL,
                ),
                Panel(
                    f"Videos within {IN_TIME_S} s",
                    "percentunit",
                    [Query(f"1 - ({late_jobs('$__range')})", "in time")],
                    f"Interactive ones, from accepted to visible; goal {IN_TIME_GOAL:.0%}.",
                    kind="stat",
                    width=4,
                    red_below=IN_TIME_GOAL,
                ),
                Panel(
                    "Lost results",
                    "none",
                    [Query(latest("lost_results"), "lost")],
                    "Completed, unexpired jobs whose committed result is missing. Must be 0.",
                    kind="stat",
                    width=4,
                    red_above=1,
                ),
                Panel(
                    "Duplicate results",
                    "none",
                    [Query(latest("duplicate_results"), "duplicate")],
                    "Results visible twice. Must be 0.",
                    kind="stat",
                    width=4,
                    red_above=1,
                ),
                Panel(
                    "Version",
                    "none",
                    [Query("count by (version) (ray_shopreel_build_info)", "{{version}}")],
                    "Replicas that report each version: two versions while a rollout is under way.",
                    kind="stat",
                    width=4,
                ),
            ],
        ),
        Row(
            "Burn of the error budgets",
            [
                _burn(
                    "API availability",
                    {window: api_errors(window) for window in _WINDOWS},
                    API_GOAL,
                    "Share of 5xx, load shed on purpose apart, over the budget.",
                ),
                _burn(
                    "Creation of videos",
                    {window: api_errors(window, CREATION) for window in _WINDOWS},
                    API_GOAL,
                    "The same of POST /v1/videos alone, over the same budget.",
                ),
                _burn(
                    "Job success",
                    {window: failed_jobs(window) for window in _WINDOWS},
                    JOBS_GOAL,
                    "Share of failed jobs, over the budget.",
                ),
                _burn(
                    "Interactive latency",
                    {window: late_jobs(window) for window in _WINDOWS},
                    IN_TIME_GOAL,
                    f"Share of videos later than {IN_TIME_S} s, over the budget.",
                ),
            ],
        ),
        Row(
            "Golden signals",
            [
                Panel(
                    "Requests",
                    "reqps",
                    [Query(rate("http_requests_total", "code"), "{{code}}")],
                    stacked=True,
                ),
                Panel(
                    "Request duration",
                    "s",
                    quantiles("http_request_duration_seconds"),
                ),
                Panel(
                    "Jobs by outcome",
                    "cps",
                    [Query(rate("jobs_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                ),
                Panel(
                    "Accepted to visible",
                    "s",
                    quantiles("job_duration_seconds", "priority"),
                ),
                Panel(
                    "Failures by code",
                    "cps",
                    [Query(rate("job_failures_total", "code"), "{{code}}")],
                    "The codes are the HTTP contract's.",
                    stacked=True,
                ),
                Panel(
                    "Refused",
                    "cps",
                    [Query(rate("jobs_refused_total", "reason"), "{{reason}}")],
                    "Requests for videos answered by 429 or 503.",
                    stacked=True,
                ),
            ],
        ),
    ],
)
