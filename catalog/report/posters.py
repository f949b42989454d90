"""Posters of the videos that a report shows, small, as data URIs: the report needs no network."""

import base64
import io
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from catalog.results.output import RunOutput
from catalog.results.tally import Shown
from storage.errors import ObjectNotFound

_SIDE_PX = 360
_READERS = 8


def posters(output: RunOutput, videos: Iterable[Shown]) -> Mapping[int, str]:
    """By row. A poster that is not in the run's folder, or is there no more, is left out.

    Raises StorageError where the store does not answer.
    """
    wanted = {video.row: video for video in videos}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="poster") as pool:
        found = pool.map(lambda video: _data_uri(output, video.poster_uri), wanted.values())
        return {row: uri for row, uri in zip(wanted, found, strict=True) if uri is not None}


def _data_uri(output: RunOutput, poster_uri: str | None) -> str | None:
    key = poster_uri and output.key_of(poster_uri)
    if not key:
        return None
    try:
        with Image.open(io.BytesIO(output.objects.get(key))) as poster:
            small = poster.convert("RGB")
    except (ObjectNotFound, UnidentifiedImageError, OSError):
        return None
    small.thumbnail((_SIDE_PX, _SIDE_PX))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
