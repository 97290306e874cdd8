"""What is wrong with a file or folder of the user, collected to say it all at once."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from seq2seq.errors import DataError, raise_together

_MOST_LISTED = 10


class Fault(NamedTuple):
    """A kind of fault: what it is, and how to mend it."""

    what: str
    remedy: str


class Faults:
    """Collects what is wrong with a source of data.

    Args:
        path: The source.
        heading: What follows from several faults, such as "the captions cannot be used".
    """

    def __init__(self, path: Path, heading: str) -> None:
        self.path = path
        self._heading = heading
        self._items: dict[Fault, list[str]] = {}

    def add(self, fault: Fault, item: str) -> None:
        """Note one fault and where it is."""
        self._items.setdefault(fault, []).append(item)

    def raise_all(self) -> None:
        """Raise one error for all that was noted.

        Raises:
            DataError: If there was anything.
        """
        problems = [
            f"{self.path}: {fault.what} ({len(items)}): {some_of(items)}. {fault.remedy}"
            for fault, items in self._items.items()
        ]
        raise_together(problems, DataError, f"{self.path}: {self._heading}:")


def some_of(items: Iterable[str], separator: str = ", ") -> str:
    """Return the first items for a message, and how many more there are."""
    items = list(items)
    more = len(items) - _MOST_LISTED
    shown = separator.join(items[:_MOST_LISTED])
    return f"{shown}{separator}and {more} more" if more > 0 else shown
