"""A table as it is printed: rows by column, with what stands over and under them."""

from collections.abc import Iterable


class Table(list[dict[str, str]]):
    """Rows by column, in the order in which keys first appear.

    Attributes:
        title: what it shows, over it; empty where that is plain.
        note: over what its numbers are, under it; empty where each row says so.
    """

    def __init__(self, rows: Iterable[dict[str, str]], title: str = "", note: str = "") -> None:
        super().__init__(rows)
        self.title, self.note = title, note
