"""Brings a Grafana to the state that this project describes: `shopreel grafana push`."""
