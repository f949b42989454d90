"""The cards: how busy, how full, how hot, and what the memory ladder had to do."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import metric, or_zero, rate

MEMORY_RUNGS = (
    "chunked_unet|fewer_rows|solo_rows|decode_chunk|other_tier|smaller_size|fewer_frames"
    "|camera_move"
)
"""Kinds of job events that say: there was not enough GPU memory for the plan."""

_CARD = "NodeAddress, gpu"
"""Replicas that share a card each report it."""

GPU = Dashboard(
    "shopreel-gpu",
    "Shopreel / GPU",
    "Utilisation, memory, temperature and power of every card, and the memory ladder.",
    [
        Row(
            "Cards",
            [
                Panel(
                    "Utilisation",
                    "percentunit",
                    [
                        Query(
                            f"max by ({_CARD}) ({metric('gpu_utilization_ratio')})",
                            "{{NodeAddress}} {{gpu}}",
                        )
                    ],
                    "Share of time in which a kernel ran.",
                ),
                Panel(
                    "Memory in use",
                    "percentunit",
                    [
                        Query(
                            f"max by ({_CARD}) ({metric('gpu_memory_used_bytes')})"
                            f" / max by ({_CARD}) ({metric('gpu_memory_total_bytes')})",
                            "{{NodeAddress}} {{gpu}}",
                        )
                    ],
                    red_above=0.97,
                ),
                Panel(
                    "Reserved by PyTorch",
                    "bytes",
                    [
                        Query(
                            f"max by (NodeAddress, tier) ({metric('gpu_memory_reserved_bytes')})",
                            "{{NodeAddress}} {{tier}}",
                        )
                    ],
                    "The largest replica of each tier.",
                ),
                Panel(
                    "Temperature",
                    "celsius",
                    [
                        Query(
                            f"max by ({_CARD}) ({metric('gpu_temperature_celsius')})",
                            "{{NodeAddress}} {{gpu}}",
                        )
                    ],
                    red_above=85,
                ),
                Panel(
                    "Power",
                    "watt",
                    [
                        Query(
                            f"max by ({_CARD})"
                            f" (rate({metric('gpu_energy_joules_total')}[$__rate_interval]))",
                            "{{NodeAddress}} {{gpu}}",
                        )
                    ],
                ),
                Panel(
                    "Energy per video",
                    "joule",
                    [
                        Query(
                            f"sum(max by ({_CARD})"
                            f" (rate({metric('gpu_energy_joules_total')}[1h]))) / "
                            + rate("jobs_total", labels='outcome="completed"', window="1h"),
                            "mean of an hour",
                        )
                    ],
                ),
                Panel(
                    "Last XID error",
                    "none",
                    [
                        Query(
                            "max by (Hostname, gpu) (DCGM_FI_DEV_XID_ERRORS)",
                            "{{Hostname}} {{gpu}}",
                        )
                    ],
                    "By dcgm-exporter where it is installed; the number is NVIDIA's, 0 is none. It"
                    " stands until another one comes.",
                    red_above=1,
                ),
            ],
        ),
        Row(
            "Memory ladder",
            [
                Panel(
                    "Rungs taken",
                    "cps",
                    [
                        Query(
                            rate("job_events_total", "kind", f'kind=~"{MEMORY_RUNGS}"'),
                            "{{kind}}",
                        )
                    ],
                    "What was done where memory did not suffice, mildest first: "
                    + ", ".join(MEMORY_RUNGS.split("|")),
                    stacked=True,
                ),
                Panel(
                    "Rungs per attempt",
                    "percentunit",
                    [
                        Query(
                            or_zero(rate("job_events_total", "", f'kind=~"{MEMORY_RUNGS}"', "1h"))
                            + f" / {rate('job_attempts_total', window='1h')}",
                            "over 1 h",
                        )
                    ],
                    "Above 5 % the presets do not fit the cards.",
                    red_above=0.05,
                ),
            ],
        ),
    ],
)
