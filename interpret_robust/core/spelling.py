"""Names of analyses as they were spelled once: files keep these, commands still take them."""

NEW_NAMES = {"localisation": "localization", "randomisation": "randomization"}
"""The name that a command has today, by the one that files hold."""


def current(name: str) -> str:
    """Return an analysis's name as it is spelled today, from that name or from the one that its files hold.

    Example:
        >>> current("localisation")
        'localization'
    """
    return NEW_NAMES.get(name, name)


def in_files(name: str) -> str:
    """Return the name of an analysis that its files and pictures hold, from the one of today.

    Example:
        >>> in_files("localization")
        'localisation'
    """
    return next((stored_name for stored_name, today in NEW_NAMES.items() if today == name), name)
