"""What a file is, by its first bytes: file names and Content-Type are not believed."""

from typing import Literal

from video.errors import UndecodablePhoto, UnsupportedPhotoType

PhotoFormat = Literal["jpeg", "png", "webp"]

# What people send by mistake, so that the refusal can name it. ISO media brands stand at byte 4.
_FOREIGN_SIGNATURES = (
    (0, b"GIF8", "a GIF"),
    (0, b"%PDF", "a PDF"),
    (0, b"%!PS", "a PostScript file"),
    (0, b"BM", "a BMP"),
    (0, b"II*\0", "a TIFF"),
    (0, b"MM\0*", "a TIFF"),
    (0, b"<svg", "an SVG drawing"),
    (0, b"<?xml", "an XML or SVG document"),
    (4, b"ftypavif", "an AVIF"),
    (4, b"ftyphei", "a HEIC"),
    (4, b"ftypmif1", "a HEIC"),
    (4, b"ftyp", "a video"),
)


def sniff_format(data: bytes) -> PhotoFormat:
    """Raises UnsupportedPhotoType, or UndecodablePhoto for no bytes at all."""
    if not data:
        raise UndecodablePhoto("the file is empty")
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    found = (name for at, magic, name in _FOREIGN_SIGNATURES if data.startswith(magic, at))
    raise UnsupportedPhotoType(next(found, "of an unknown type"))
