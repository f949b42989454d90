"""Catalogue: product lists, their runs and what came of them."""
