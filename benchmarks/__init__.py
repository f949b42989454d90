"""Measurements behind `make bench`; every figure is a ratio or a median within one run."""
