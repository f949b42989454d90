"""Camera moves over a photo: video without a model. Nothing in it is generated."""
