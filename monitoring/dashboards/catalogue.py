"""Batches: rows done and left, whether they move, and the webhooks that tell of it."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import latest, or_zero, quantiles, rate

_AGE = f"(time() - {latest('batch_last_progress_timestamp_seconds')})"

CATALOGUE = Dashboard(
    "shopreel-catalogue",
    "Shopreel / Catalogue",
    "Rows of batches, their pace and freshness, and deliveries of webhooks.",
    [
        Row(
            "Rows",
            [
                Panel(
                    "Rows left",
                    "none",
                    [Query(latest("batch_rows_remaining"), "of unfinished batches")],
                ),
                Panel(
                    "Rows ended",
                    "cps",
                    [Query(rate("batch_rows_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                ),
                Panel(
                    "Time left",
                    "s",
                    [
                        Query(
                            f"{latest('batch_rows_remaining')}"
                            f" / {rate('batch_rows_total', window='1h')}",
                            "at the pace of the last hour",
                        )
                    ],
                ),
                Panel(
                    "Since the last progress",
                    "s",
                    [Query(f"{_AGE} and {latest('batch_rows_remaining')} > 0 or vector(0)", "age")],
                    "0 while no batch is unfinished; above 15 min a batch is stuck.",
                    red_above=900,
                ),
                Panel(
                    "Rows that failed",
                    "percentunit",
                    [
                        Query(
                            or_zero(rate("batch_rows_total", "", 'outcome="failed"', "1h"))
                            + f" / {rate('batch_rows_total', window='1h')}",
                            "over 1 h",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "Their jobs",
            [
                Panel(
                    "Batch jobs waiting",
                    "none",
                    [Query(latest("queue_depth", labels='priority="batch"'), "waiting")],
                ),
                Panel(
                    "Jobs created",
                    "cps",
                    [Query(rate("jobs_created_total", "priority"), "{{priority}}")],
                    stacked=True,
                ),
                Panel("Accepted to visible", "s", quantiles("job_duration_seconds", "priority")),
            ],
        ),
        Row(
            "Webhooks",
            [
                Panel(
                    "Deliveries",
                    "cps",
                    [Query(rate("webhook_deliveries_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                )
            ],
        ),
    ],
)
