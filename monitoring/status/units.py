"""Figures in the units of the dashboards, as a person reads them."""

import math
from collections.abc import Mapping, Sequence

_Scale = Sequence[tuple[float, str]]  # (how many of the base unit, its sign), the largest first

_COUNT: _Scale = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_BYTES: _Scale = (
    *((2.0**power, f" {sign}iB") for power, sign in ((40, "T"), (30, "G"), (20, "M"), (10, "K"))),
    (1, " B"),
)
_SECONDS: _Scale = (
    *((86_400, " d"), (3600, " h"), (60, " min"), (1, " s")),
    *((1e-3, " ms"), (1e-6, " µs")),
)
_CLOCK_STEPS = (
    15.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1200.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    86_400.0,
)
_AS_IT_IS: _Scale = ((1, ""),)

_SCALES: Mapping[str, tuple[float, _Scale, str]] = {  # Grafana's id: (times, scale, what follows)
    "none": (1, _COUNT, ""),
    "s": (1, _SECONDS, ""),
    "ms": (1e-3, _SECONDS, ""),
    "bytes": (1, _BYTES, ""),
    "Bps": (1, _BYTES, "/s"),
    "percentunit": (100, _AS_IT_IS, " %"),
    "percent": (1, _AS_IT_IS, " %"),
    "reqps": (1, _COUNT, " req/s"),
    "ops": (1, _COUNT, " op/s"),
    "cps": (1, _COUNT, " /s"),
    "celsius": (1, _AS_IT_IS, " °C"),
    "watt": (1, ((1e3, " kW"), (1, " W")), ""),
    "joule": (1, ((3.6e6, " kWh"), (1e3, " kJ"), (1, " J")), ""),
}


def formatted(value: float, unit: str) -> str:
    """`unit`: Grafana's id of it, one of those that our dashboards use."""
    times, scale, after = _SCALES[unit]
    if not math.isfinite(value):
        return "–" if math.isnan(value) else "∞" if value > 0 else "-∞"
    amount = value * times
    step, sign = next(
        (entry for entry in scale if abs(amount) >= entry[0]),
        scale[-1] if amount else next(entry for entry in scale if entry[0] == 1),
    )
    return f"{_number(amount / step)}{sign}{after}"


def _number(amount: float) -> str:
    """Three digits that count."""
    if amount == round(amount) and abs(amount) < 1e6:
        return f"{amount:,.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(amount))))
    if digits > 5:
        return f"{amount:.3g}"
    return f"{amount:,.{digits}f}".rstrip("0").rstrip(".") if digits else f"{amount:,.0f}"


def round_step(least: float, unit: str) -> float:
    """The smallest step from tick to tick that is not below `least` and looks round."""
    if unit == "s" and least > 10:
        days = math.ceil(least / 86_400) * 86_400.0
        return next((step for step in _CLOCK_STEPS if step >= least), days)
    base = 1024.0 ** math.floor(math.log(least, 1024)) if unit in ("bytes", "Bps") else 1.0
    power = base * 10.0 ** math.floor(math.log10(least / base))
    return next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= least * (1 - 1e-9))
