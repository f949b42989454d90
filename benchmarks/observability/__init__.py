"""What watching costs: scrapes, emissions of metrics, lines of logs."""
