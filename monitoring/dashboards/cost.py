"""What a video costs, and what was saved. Money is in the currency of the tiers' cost_per_hour."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import metric, rate

_COMPLETED = 'outcome="completed"'

COST = Dashboard(
    "shopreel-cost",
    "Shopreel / Cost",
    "GPU seconds and money per video and tier; what caches and duplicates saved. Money is in the"
    " currency of the tiers' cost_per_hour.",
    [
        Row(
            "Per video, over an hour",
            [
                Panel(
                    "GPU seconds per video",
                    "s",
                    [
                        Query(
                            f"{rate('gpu_seconds_total', 'tier', window='1h')}"
                            f" / {rate('jobs_total', 'tier', _COMPLETED, '1h')}",
                            "{{tier}}",
                        )
                    ],
                    "UNet calls, those of attempts that came to nothing included.",
                ),
                Panel(
                    "Cost per video",
                    "none",
                    [
                        Query(
                            f"{rate('cost_total', 'tier', window='1h')}"
                            f" / {rate('jobs_total', 'tier', _COMPLETED, '1h')}",
                            "{{tier}}",
                        )
                    ],
                    "Of replicas that run, busy or not.",
                ),
                Panel(
                    "Videos per replica and hour",
                    "none",
                    [
                        Query(
                            f"3600 * {rate('jobs_total', 'tier', _COMPLETED, '1h')}"
                            f" / max by (tier) (avg_over_time({metric('tier_replicas')}[1h]))",
                            "{{tier}}",
                        )
                    ],
                    "A replica at rest lowers it: what is paid for, not what is possible.",
                ),
            ],
        ),
        Row(
            "In total",
            [
                Panel(
                    "Cost in the time shown",
                    "none",
                    [
                        Query(
                            f"sum by (tier) (increase({metric('cost_total')}[$__range]))",
                            "{{tier}}",
                        )
                    ],
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "GPU time in the time shown",
                    "s",
                    [
                        Query(
                            f"sum by (tier) (increase({metric('gpu_seconds_total')}[$__range]))",
                            "{{tier}}",
                        )
                    ],
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "Videos in the time shown",
                    "none",
                    [
                        Query(
                            "sum by (tier) (increase("
                            f"{metric('jobs_total', _COMPLETED)}[$__range]))",
                            "{{tier}}",
                        )
                    ],
                    kind="stat",
                    width=6,
                ),
                Panel(
                    "Spent per hour",
                    "none",
                    [Query(f"3600 * {rate('cost_total', 'tier')}", "{{tier}}")],
                    stacked=True,
                    width=24,
                ),
            ],
        ),
    ],
)
