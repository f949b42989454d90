"""The newest videos, however many pages of the API they fill."""

from serve.web.api import Api, Json

_AT_ONCE = 100  # the most that the API gives


async def newest(api: Api, count: int, **asked: str) -> tuple[list[Json], bool]:
    """`count` videos of which all that is asked holds, and whether there are more. Raises
    Refused."""
    found: list[Json] = []
    after = ""
    while True:
        limit = str(min(_AT_ONCE, count - len(found)))
        page = await api.videos(limit=limit, after=after, **asked)
        found += page["data"]
        if len(found) == count or not page["has_more"]:
            return found, page["has_more"]
        after = page["last_id"]
