"""My videos."""
