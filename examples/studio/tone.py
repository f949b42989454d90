"""Between the light in the studio and the numbers in a picture."""

import numpy as np

from studio.sdf import Array

SHOULDER = 0.62  # linear light above this is compressed towards 1


def develop(light: Array) -> Array:
    """Linear light -> what the photo shows, still linear, highlights rolled off below 1."""
    over = np.maximum(light - SHOULDER, 0.0) / (1.0 - SHOULDER)
    shown: Array = np.minimum(light, SHOULDER) + (1.0 - SHOULDER) * (1.0 - np.exp(-over))
    return shown


def undevelop(shown: Array) -> Array:
    """The light that `develop` shows so; for backdrops given as they shall look."""
    over = np.clip((shown - SHOULDER) / (1.0 - SHOULDER), 0.0, 0.98)
    light: Array = np.minimum(shown, SHOULDER) - (1.0 - SHOULDER) * np.log1p(-over)
    return light


def encode(linear: Array) -> Array:
    """Linear light -> sRGB, both 0..1."""
    linear = np.clip(linear, 0.0, 1.0)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
