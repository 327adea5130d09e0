"""Numbers as people write them."""

import math

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}

NO_NUMBER = "-"
"""What stands in text in the place of a number that is not known."""


def parse_number(text: str) -> float:
    """Return a number, or a fraction such as 8/255. Raises ValueError for anything else."""
    top, slash, bottom = text.partition("/")
    if slash and float(bottom) == 0:
        raise ValueError(f"{text} divides by zero")
    return float(top) / float(bottom) if slash else float(top)


def format_number(value: float, form: str, unit: str = "") -> str:
    """Return a number as text in a form such as `.2f`; NO_NUMBER where it is not known, which is NaN.

    Halves are rounded away from zero, whatever the last bits of a number are: a mean is the same text however it was
    added up.

    Example:
        >>> format_number(0.0833, ".2f"), format_number(math.nan, ".2f")
        ('0.08', '-')
        >>> format_number(15.149999999999999, ".1f"), format_number(26.65, ".1f")
        ('15.2', '26.7')
    """
    return NO_NUMBER if math.isnan(value) else f"{value * BEYOND_HALF:{form}}{unit}"


BEYOND_HALF = 1 + 1e-12
"""Times this, what the last bits of a float put just below a half lies above it."""


def format_part(part: int, whole: int) -> str:
    """Return text such as `97 of 100`, or `100` where the part is the whole."""
    return str(whole) if part == whole else f"{part} of {whole}"


def format_percent(share: float, decimals: int = 1) -> str:
    """Return a share as text such as `8.3 %`; NO_NUMBER where it is not known."""
    return format_number(100 * share, f"z.{decimals}f", " %")


def format_count(count: int, noun: str) -> str:
    """Return a number of things as text.

    Example:
        >>> format_count(1, "model"), format_count(1000, "test image"), format_count(2, "class")
        ('1 model', '1000 test images', '2 classes')
    """
    ending = "" if count == 1 else "es" if noun.endswith("s") else "s"
    return f"{count} {noun}{ending}"


def put_beside(cell: str, reference: str) -> str:
    """Return text such as `84.1 % [83.0, 85.2] (17.3 %)`: a number and what it is compared with, where both are known.

    Example:
        >>> put_beside("84.1 %", "17.3 %"), put_beside("84.1 %", "-")
        ('84.1 % (17.3 %)', '84.1 %')
    """
    return cell if NO_NUMBER in (cell, reference) else f"{cell} ({reference})"


def format_duration(seconds: float) -> str:
    """Return a length of time from 0 on as text, in the largest two units that it has.

    Example:
        >>> format_duration(4.23), format_duration(75), format_duration(11630)
        ('4.2 s', '1 min 15 s', '3 h 14 min')
    """
    if seconds < SHORT:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    parts = [(minutes, "min"), (rest, "s")]
    if minutes >= 60:
        hours, minutes = divmod(round(seconds / 60), 60)
        parts = [(hours, "h"), (minutes, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts if count)


SHORT = 9.95
"""Seconds below which tenths are told."""


def parse_duration(text: str) -> float:
    """Return a length of time such as 90s, 5m or 2h; plain numbers are seconds. Raises ValueError for anything else."""
    unit = UNITS.get(text[-1:])
    value = parse_number(text[:-1] if unit else text) * (unit or 1.0)
    if not value >= 0:
        raise ValueError(f"{text} is negative")
    return value
