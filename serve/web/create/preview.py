"""Photos as the model will see them: what the service's own functions make of them."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from serve.web.markup import Preview
from video.errors import PhotoError
from video.photo import Fit, PhotoLimits, fit_photo, open_photo, target_size

_LONGEST_SIDE_PX = 240


def preview(
    photo: Path, fit: str, preset: Mapping[str, Any], size_multiple: int, limits: PhotoLimits
) -> Preview | None:
    """None of what is no photo: the service says why, once it is sent."""
    try:
        rgb = open_photo(photo.read_bytes(), limits).rgb
    except PhotoError:
        return None
    height, width = rgb.shape[:2]
    width, height = target_size(width, height, preset["area_px"], size_multiple)
    small = Image.fromarray(fit_photo(rgb, width, height, Fit(fit)))
    small.thumbnail((_LONGEST_SIDE_PX, _LONGEST_SIDE_PX))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    url = f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return Preview(photo.name, url, width, height)
