"""Figures as the console writes them: durations, numbers, shares."""

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_KIB = 1_024
_WHOLE = 100  # from here on without a decimal
NOTHING = "\N{EN DASH}"


def duration(seconds: float | None) -> str:
    """``12 s``, ``3 min 04 s``, ``1 h 20 min``, ``2 d 3 h``; a dash where it is unknown."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def about(seconds: float | None) -> str:
    """A duration that is estimated: to minutes from two on."""
    if seconds is None:
        return NOTHING
    if seconds < 2 * _MINUTE:
        return f"about {max(10, 10 * round(seconds / 10))} s"
    if seconds < 2 * _HOUR:
        return f"about {round(seconds / _MINUTE)} minutes"
    return f"about {round(seconds / _HOUR)} hours"


def number(value: float | None, digits: int = 0) -> str:
    """``26,103``; a dash where it is unknown."""
    return NOTHING if value is None else f"{value:,.{digits}f}"


def size(count: int) -> str:
    """A number of bytes: ``812 B``, ``1.2 MiB``."""
    value, unit = float(count), "B"
    for bigger in ("KiB", "MiB", "GiB"):
        if value < _KIB:
            break
        value, unit = value / _KIB, bigger
    return f"{value:.0f} {unit}" if unit == "B" or value >= _WHOLE else f"{value:.1f} {unit}"
