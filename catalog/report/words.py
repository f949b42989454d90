"""Figures as a person reads them."""

from datetime import UTC, datetime

_STEPS = (("d", 86_400), ("h", 3600), ("min", 60), ("s", 1))


def count(number: int) -> str:
    return f"{number:,}"


def duration(seconds: float) -> str:
    """The two largest units: `3 h 12 min`; below ten seconds, the one with decimals."""
    if seconds < 0.005:
        return "0 s"
    if seconds < 9.95:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    whole = round(seconds)
    for (unit, size), (small, small_size) in zip(_STEPS, _STEPS[1:], strict=False):
        if whole >= size:
            rest = whole % size // small_size
            return f"{whole // size:,} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


def size(num_bytes: int) -> str:
    """Decimal units, as disks and clouds are sold."""
    amount, unit = float(num_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.3g} {unit}"


def share(part: float, whole: float) -> str:
    """In percent; what is not quite all, or not quite nothing, is not said to be."""
    if not whole:
        return "0 %"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.1f} %" if percent % 1 and percent < 99.95 else f"{percent:.0f} %"


def money(amount: float, currency: str | None) -> str:
    digits = 2 if amount >= 1 or not amount else 4
    return f"{amount:,.{digits}f}" + (f" {currency}" if currency else "")


def moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
