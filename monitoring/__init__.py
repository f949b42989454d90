"""What is seen of a running service: metrics, alerts, dashboards, logs, traces, the status page."""
