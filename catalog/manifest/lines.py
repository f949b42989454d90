"""Lines of a UTF-8 file, bounded in memory, whatever the file turns out to be."""

import codecs
import gzip
import zlib
from typing import BinaryIO

from catalog.errors import ManifestRefused

MAX_LINE_BYTES = 2**20


class Lines:
    """An iterator of lines that knows where it is, for csv.reader too.

    Raises ManifestRefused for UTF-16, a line longer than MAX_LINE_BYTES and damaged gzip; a line
    that is not UTF-8 comes with replacement characters and sets `undecodable`.
    """

    def __init__(self, uri: str, file: BinaryIO) -> None:
        self._uri, self._file = uri, file
        self.number = 0  # of the line given last, from 1
        self.taken_bytes = 0  # since the caller set it to 0
        self.undecodable = False  # since the caller set it to False

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        try:
            line = self._file.readline(MAX_LINE_BYTES + 1)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ManifestRefused(
                self._uri, [f"damaged gzip after line {self.number}: {error}"]
            ) from None
        if not line:
            raise StopIteration
        if self.number == 0:
            line = self._without_mark(line)
        self.number += 1
        self.taken_bytes += len(line)
        if len(line) > MAX_LINE_BYTES:
            raise ManifestRefused(
                self._uri, [f"line {self.number} is longer than {MAX_LINE_BYTES} bytes"]
            )
        try:
            return line.decode()
        except UnicodeDecodeError:
            self.undecodable = True
            return line.decode(errors="replace")

    def _without_mark(self, line: bytes) -> bytes:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise ManifestRefused(self._uri, ["the text is UTF-16: save it as UTF-8"])
        return line.removeprefix(codecs.BOM_UTF8)
