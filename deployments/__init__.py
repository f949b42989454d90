"""One file per autoscaled Ray Serve deployment: a thin shell around a Ray-free function."""
