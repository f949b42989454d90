"""Load on the HTTP API: the generator, the listeners, the full job table and the probe inside."""
