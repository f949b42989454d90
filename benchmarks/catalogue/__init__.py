"""Catalogue runs as they are measured: products, kills, the final table, paced denoisers."""
