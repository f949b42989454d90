"""Where the time of a video goes, stage by stage."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import metric, quantile, quantiles, rate

PIPELINE = Dashboard(
    "shopreel-pipeline",
    "Shopreel / Pipeline",
    "Seconds of each stage, of the UNet, and what went otherwise than planned.",
    [
        Row(
            "From accepted to visible",
            [
                Panel(
                    "Accepted to visible",
                    "s",
                    [
                        Query(
                            "sum by (le) (increase("
                            f"{metric('job_duration_seconds_bucket')}[$__rate_interval]))",
                            "{{le}}",
                        )
                    ],
                    "Videos per bucket of their whole duration.",
                    kind="heatmap",
                ),
                Panel("Wait in the queue", "s", quantiles("job_queue_wait_seconds", "priority")),
                Panel(
                    "Error of the foreseen end",
                    "percentunit",
                    quantiles("eta_error_ratio"),
                    "|real - foreseen| over the real seconds from lease to end.",
                ),
            ],
        ),
        Row(
            "Stages",
            [
                Panel(
                    "Stage duration, p50",
                    "s",
                    [Query(quantile(0.5, "stage_duration_seconds", "stage"), "{{stage}}")],
                ),
                Panel(
                    "Stage duration, p95",
                    "s",
                    [Query(quantile(0.95, "stage_duration_seconds", "stage"), "{{stage}}")],
                ),
                Panel(
                    "Stage duration, p99",
                    "s",
                    [Query(quantile(0.99, "stage_duration_seconds", "stage"), "{{stage}}")],
                ),
                Panel(
                    "Work done by stage",
                    "cps",
                    [Query(rate("stage_duration_seconds_count", "stage"), "{{stage}}")],
                    "Where one stage falls behind the one before it, clips pile up between them.",
                ),
                Panel(
                    "Prompts found in the cache",
                    "percentunit",
                    [
                        Query(
                            rate("prompt_cache_requests_total", labels='result="hit"')
                            + f" / {rate('prompt_cache_requests_total')}",
                            "hits",
                        )
                    ],
                ),
            ],
        ),
        Row(
            "UNet",
            [
                Panel(
                    "Denoising steps",
                    "cps",
                    [Query(rate("denoise_steps_total", "tier"), "{{tier}}")],
                ),
                Panel(
                    "Duration of a denoising step",
                    "s",
                    quantiles("denoise_step_duration_seconds", "tier"),
                ),
                Panel(
                    "Frames",
                    "cps",
                    [Query(rate("frames_generated_total", "tier"), "{{tier}}")],
                ),
                Panel(
                    "Generation of a frame",
                    "s",
                    quantiles("frame_generation_seconds", "tier"),
                    "Denoising and decoding of a clip, per frame.",
                ),
            ],
        ),
        Row(
            "Otherwise than planned",
            [
                Panel(
                    "Events",
                    "cps",
                    [Query(rate("job_events_total", "kind"), "{{kind}}")],
                    "Rungs of the memory ladder, preemptions, resumptions, lost workers.",
                    stacked=True,
                ),
                Panel(
                    "Attempts by outcome",
                    "cps",
                    [Query(rate("job_attempts_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                ),
                Panel(
                    "Leases run out, commits suppressed",
                    "cps",
                    [
                        Query(rate("lease_expirations_total"), "leases run out"),
                        Query(rate("duplicate_commits_suppressed_total"), "duplicates suppressed"),
                    ],
                    "A lease runs out when a worker is lost; a suppressed commit is a second"
                    " attempt that found the first one's result.",
                ),
            ],
        ),
    ],
)
