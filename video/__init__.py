"""Pixels without a model: a photo into frame 0, frames into a publishable file.

Knows no Ray and no torch.
"""
