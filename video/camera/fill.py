"""A picture's hidden part filled in from what is round it."""

import cv2
import numpy as np
from numpy.typing import NDArray


def fill(pixels: NDArray[np.float32], known: NDArray[np.float32]) -> NDArray[np.float32]:
    """`pixels` [H, W, 3], those that are not `known`, [H, W] 0 to 1, from the nearest that are.
    Pull-push: Gortler et al., "The Lumigraph", SIGGRAPH 1996."""
    height, width = known.shape
    if min(height, width) < 2 or known.min() >= 1:
        return pixels
    share = cv2.pyrDown(known)[..., None]
    mean = cv2.pyrDown(pixels * known[..., None]) / np.maximum(share, 1e-6)
    coarse = fill(mean, np.minimum(share[..., 0] * 2, 1))
    smooth = cv2.pyrUp(coarse, dstsize=(width, height))
    return np.asarray(smooth + known[..., None] * (pixels - smooth), dtype=np.float32)
