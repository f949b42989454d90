"""A photo of 200 kB, a new one for every create: equal photos would be one object in the store."""

import functools
import secrets

from serve.commands import EXAMPLES

_PHOTO = EXAMPLES / "apparel-beanie.jpg"  # 204,001 bytes, 1024 x 1024
_BOUNDARY = "shopreel-benchmark"
_START = b"\xff\xd8"  # of every JPEG
_COMMENT = b"\xff\xfe\x00\x22"  # a segment of 32 bytes follows, which decoders skip


def form_of_a_new_photo() -> tuple[str, bytes]:
    """Media type and body of a `POST /v1/videos`."""
    before, after = _around_the_comment()
    body = before + secrets.token_hex(16).encode() + after
    return f"multipart/form-data; boundary={_BOUNDARY}", body


@functools.cache
def _around_the_comment() -> tuple[bytes, bytes]:
    jpeg = _PHOTO.read_bytes()
    assert jpeg.startswith(_START)
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="prompt"\r\n\r\na beanie turns\r\n'
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="input_reference"; filename="beanie.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    return head + _START + _COMMENT, jpeg[len(_START) :] + tail
