"""Numbers as people write them."""

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def number(text: str) -> float:
    """Return a number, or a fraction such as 8/255. Raises ValueError for anything else."""
    top, slash, bottom = text.partition("/")
    if slash and float(bottom) == 0:
        raise ValueError(f"{text} divides by zero")
    return float(top) / float(bottom) if slash else float(top)


def seconds(text: str) -> float:
    """Return a length of time such as 90s, 5m or 2h; plain numbers are seconds. Raises ValueError for anything else."""
    unit = UNITS.get(text[-1:])
    value = number(text[:-1] if unit else text) * (unit or 1.0)
    if not value >= 0:
        raise ValueError(f"{text} is negative")
    return value
