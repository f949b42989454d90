"""Entrances and wiring: the HTTP API, the command line, the one place where all is bound."""
