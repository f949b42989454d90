"""Which videos are shown: what the API lists, and what it cannot be asked for."""

from serve.web.api import Api, Json

_AT_ONCE = "100"  # the most that the API gives
_MOST_READ = 10
"""Answers of the API for one look: it knows no category to ask by, so the page reads on until it
has found enough."""


async def find(
    api: Api, status: str, sku: str, category: str, count: int
) -> tuple[list[Json], bool]:
    """The newest `count` videos of which all that is said holds, and whether there may be more.
    Raises Refused."""
    found: list[Json] = []
    after = ""
    for _ in range(_MOST_READ):
        page = await api.videos(limit=_AT_ONCE, after=after, status=status, sku=sku)
        found += [one for one in page["data"] if category in ("", one["category"])]
        if len(found) > count or not page["has_more"]:
            return found[:count], len(found) > count
        after = page["last_id"]
    return found, True
