"""What the service stands on: the object store, checkpoints, Ray and the nodes."""

from monitoring.dashboards.panel import Dashboard, Panel, Query, Row
from monitoring.dashboards.promql import latest, quantile, rate

_OURS = 'application="shopreel"'

STORAGE_RAY = Dashboard(
    "shopreel-storage-ray",
    "Shopreel / Storage + Ray",
    "The object store by operation, checkpoints, deployments as Ray Serve sees them, and nodes.",
    [
        Row(
            "Object store",
            [
                Panel(
                    "Operations",
                    "ops",
                    [Query(rate("storage_operation_duration_seconds_count", "op"), "{{op}}")],
                    stacked=True,
                ),
                Panel(
                    "Duration, p95",
                    "s",
                    [Query(quantile(0.95, "storage_operation_duration_seconds", "op"), "{{op}}")],
                ),
                Panel(
                    "Errors",
                    "cps",
                    [Query(rate("storage_errors_total", "op, kind"), "{{op}} {{kind}}")],
                    stacked=True,
                ),
                Panel("Bytes", "Bps", [Query(rate("storage_bytes_total", "op"), "{{op}}")]),
                Panel(
                    "Checkpoints",
                    "cps",
                    [Query(rate("checkpoints_total", "outcome"), "{{outcome}}")],
                    stacked=True,
                ),
                Panel(
                    "Checkpoints, bytes",
                    "Bps",
                    [Query(rate("checkpoint_bytes_total"), "stored")],
                ),
                Panel(
                    "Oldest unsaved progress",
                    "s",
                    [Query(latest("checkpoint_age_seconds", "tier"), "{{tier}}")],
                    "What a clip in flight would have to do again if its worker were lost now.",
                ),
                Panel(
                    "Audit of results",
                    "s",
                    [
                        Query(
                            f"time() - {latest('audit_last_success_timestamp_seconds')}",
                            "since it had looked at all",
                        ),
                        Query(latest("audit_lag_seconds"), "behind the jobs' ends"),
                    ],
                    "While it stands still, lost and duplicate results are not found.",
                    red_above=1800,
                ),
            ],
        ),
        Row(
            "Ray Serve",
            [
                Panel(
                    "Calls",
                    "cps",
                    [
                        Query(
                            "sum by (deployment) (rate("
                            f"ray_serve_deployment_request_counter_total{{{_OURS}}}"
                            "[$__rate_interval]))",
                            "{{deployment}}",
                        )
                    ],
                ),
                Panel(
                    "Calls that raised",
                    "cps",
                    [
                        Query(
                            "sum by (deployment) (rate("
                            f"ray_serve_deployment_error_counter_total{{{_OURS}}}"
                            "[$__rate_interval]))",
                            "{{deployment}}",
                        )
                    ],
                ),
                Panel(
                    "Calls, p95",
                    "ms",
                    [
                        Query(
                            "histogram_quantile(0.95, sum by (deployment, le) (rate("
                            f"ray_serve_deployment_processing_latency_ms_bucket{{{_OURS}}}"
                            "[$__rate_interval])))",
                            "{{deployment}}",
                        )
                    ],
                    "Ray measures it in ms.",
                ),
                Panel(
                    "Calls queued",
                    "none",
                    [
                        Query(
                            f"sum by (deployment) (ray_serve_deployment_queued_queries{{{_OURS}}})",
                            "{{deployment}}",
                        )
                    ],
                ),
                Panel(
                    "Object store memory of Ray",
                    "bytes",
                    [Query("sum by (Location) (ray_object_store_memory)", "{{Location}}")],
                    stacked=True,
                ),
            ],
        ),
        Row(
            "Nodes",
            [
                Panel("Up", "none", [Query('up{job="shopreel"}', "{{instance}}")]),
                Panel(
                    "CPU",
                    "percent",
                    [Query("max by (ip) (ray_node_cpu_utilization)", "{{ip}}")],
                ),
                Panel(
                    "Memory in use",
                    "percentunit",
                    [
                        Query(
                            "max by (ip) (ray_node_mem_used) / max by (ip) (ray_node_mem_total)",
                            "{{ip}}",
                        )
                    ],
                ),
                Panel(
                    "Disk left",
                    "percentunit",
                    [
                        Query(
                            "min by (ip) (ray_node_disk_free"
                            " / (ray_node_disk_free + ray_node_disk_usage))",
                            "{{ip}}",
                        )
                    ],
                    red_below=0.1,
                ),
                Panel(
                    "Volumes left",
                    "percentunit",
                    [
                        Query(
                            "min by (persistentvolumeclaim) ("
                            'kubelet_volume_stats_available_bytes{namespace="shopreel"}'
                            ' / kubelet_volume_stats_capacity_bytes{namespace="shopreel"})',
                            "{{persistentvolumeclaim}}",
                        )
                    ],
                    "Of Kubernetes; by the kubelets, where Prometheus scrapes them.",
                    red_below=0.1,
                ),
                Panel(
                    "Answered from outside",
                    "none",
                    [
                        Query(
                            'min by (instance) (probe_success{job="shopreel-probe"})',
                            "{{instance}}",
                        )
                    ],
                    "By blackbox-exporter through the ingress (cluster/kubernetes/probe.yaml).",
                ),
            ],
        ),
    ],
)
