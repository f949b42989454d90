"""Faults for each alert, caused in a cluster that a real Prometheus scrapes."""
