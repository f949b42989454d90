"""One module per product; each has a function `scene()` and keeps its colours and measures."""
