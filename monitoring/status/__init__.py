"""What a Prometheus knows, for people without Grafana: the dashboards as one page, and a digest."""
