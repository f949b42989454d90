"""Is there enough of it? The queue, the tiers and what the autoscaler makes of them."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import latest, rate

_OURS = 'application="shopreel"'
_TIERS = 'deployment=~"Denoiser.*|CameraRenderer"'

CAPACITY = Dashboard(
    "shopreel-capacity",
    "Shopreel / Capacity",
    "Depth and age of the queue, backlog and replicas of each tier, and the other stages.",
    [
        Row(
            "Queue",
            [
                Panel(
                    "Jobs waiting",
                    "none",
                    [Query(latest("queue_depth", "priority"), "{{priority}}")],
                    stacked=True,
                ),
                Panel(
                    "Age of the oldest job waiting",
                    "s",
                    [Query(latest("queue_oldest_age_seconds", "priority"), "{{priority}}")],
                ),
                Panel(
                    "Arrivals and departures",
                    "cps",
                    [
                        Query(rate("jobs_created_total"), "created"),
                        Query(rate("jobs_total"), "ended"),
                    ],
                    "While more are created than end, the queue grows.",
                ),
            ],
        ),
        Row(
            "Tiers",
            [
                Panel(
                    "Backlog",
                    "s",
                    [Query(latest("backlog_gpu_seconds", "tier"), "{{tier}}")],
                    "Predicted seconds of one replica.",
                ),
                Panel(
                    "Time to work the backlog off",
                    "s",
                    [
                        Query(
                            f"{latest('backlog_gpu_seconds', 'tier')}"
                            f" / ({latest('tier_replicas', 'tier')} > 0)",
                            "{{tier}}",
                        )
                    ],
                    "By the replicas that are ready now; a tier at rest is not shown.",
                ),
                Panel(
                    "Replicas",
                    "none",
                    [
                        Query(latest("tier_replicas", "tier"), "{{tier}} ready"),
                        Query(
                            latest("replicas_starting", "deployment", _TIERS),
                            "{{deployment}} starting",
                        ),
                    ],
                    "Those that start are wanted and do not run yet.",
                ),
                Panel(
                    "Jobs in flight",
                    "none",
                    [Query(latest("jobs_in_flight", "tier"), "{{tier}}")],
                    stacked=True,
                ),
                Panel(
                    "Jobs ended",
                    "cps",
                    [Query(rate("jobs_total", "tier"), "{{tier}}")],
                    stacked=True,
                ),
            ],
        ),
        Row(
            "All deployments",
            [
                Panel(
                    "Replicas that run",
                    "none",
                    [
                        Query(
                            "sum by (deployment)"
                            f" (ray_serve_deployment_replica_healthy{{{_OURS}}})",
                            "{{deployment}}",
                        )
                    ],
                ),
                Panel(
                    "Replicas that start",
                    "none",
                    [Query(latest("replicas_starting", "deployment"), "{{deployment}}")],
                    "Wanted, and not there: for long only where no node has room, or they die.",
                ),
                Panel(
                    "Calls at work",
                    "none",
                    [
                        Query(
                            "sum by (deployment)"
                            f" (ray_serve_replica_processing_queries{{{_OURS}}})",
                            "{{deployment}}",
                        )
                    ],
                ),
                Panel(
                    "Start of a replica, p95",
                    "ms",
                    [
                        Query(
                            "histogram_quantile(0.95, sum by (deployment, le) (increase("
                            f"ray_serve_replica_startup_latency_ms_bucket{{{_OURS}}}[1h])))",
                            "{{deployment}}",
                        )
                    ],
                    "Over the last hour; Ray measures it in ms.",
                ),
            ],
        ),
    ],
)
