"""Batches: catalogue runs that were asked for by HTTP, from their rows to their ends."""
