"""A file of the object store as an answer: whole, in part, or that the caller has it already."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import Header, Request, Response

from serve.edge.middleware import is_head
from serve.edge.rfc9110 import is_known, parse_range


class FileRequest:
    """What a caller says of the file that it asks for; a FastAPI dependency."""

    def __init__(
        self,
        request: Request,
        range_: Annotated[str, Header(alias="Range")] = "",
        if_none_match: Annotated[str | None, Header()] = None,
        if_range: Annotated[str | None, Header()] = None,
    ) -> None:
        self._is_head, self._range = is_head(request), range_
        self._if_none_match, self._if_range = if_none_match, if_range

    async def answered(
        self,
        etag: str,
        media_type: str,
        more: Mapping[str, str],
        size_bytes: Callable[[], Awaitable[int]],
        read: Callable[[range], Awaitable[bytes]],
    ) -> Response:
        """`etag` comes without its quotes, `more` are further headers. Nothing is read for HEAD,
        for what the caller has, and for a range past the end. Raises what `size_bytes` and `read`
        raise."""
        headers = {
            "ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
            "X-Content-Type-Options": "nosniff",
            **more,
        }
        if is_known(headers["ETag"], self._if_none_match):
            return Response(status_code=304, headers=headers)
        same = self._if_range in (None, headers["ETag"])  # else: send the whole anew
        wanted = parse_range(self._range) if same else None
        size = await size_bytes()
        part = range(size) if wanted is None else range(size)[wanted]
        if wanted is not None and not part:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
        status = 200 if wanted is None else 206
        if self._is_head:
            headers["Content-Length"] = str(len(part))
            return Response(None, status, headers, media_type)
        return Response(await read(part), status, headers, media_type)
