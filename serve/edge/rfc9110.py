"""Conditional and range requests (RFC 9110 §13 and §14)."""

import re

_RANGE = re.compile(r"bytes=(?:([0-9]{1,18})-([0-9]{1,18})?|-([0-9]{1,18}))", re.IGNORECASE)


def parse_range(header: str) -> slice | None:
    """One byte range. None for several at once, which may be answered with the whole, and for what
    is none, which must be (§14.2)."""
    matched = _RANGE.fullmatch(header.replace(" ", ""))
    if matched is None:
        return None
    first, last, suffix = matched.groups()
    if suffix is not None:
        return slice(-int(suffix), None) if int(suffix) else slice(0)
    start, stop = int(first), None if last is None else int(last) + 1
    return slice(start, stop) if stop is None or start < stop else None


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the caller has this already; §13.1.2, whose comparison is the weak one."""
    known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in known or etag.removeprefix("W/") in known
