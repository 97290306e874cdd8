"""Saved arrays, where several threads read them."""

import threading
from collections.abc import Callable
from typing import TypeVar

_Parsed = TypeVar("_Parsed")

_PARSING = threading.Lock()


def parse_array(parse: Callable[[], _Parsed]) -> _Parsed:
    """Return what parses the header of an ``.npy`` or ``.npz`` file.

    NumPy parses it as Python, which in several threads at once fails now and then in Python 3.11
    (SystemError: AST constructor recursion depth mismatch).

    Args:
        parse: Called by one thread at a time; once more where it failed for that reason.
    """
    with _PARSING:
        try:
            return parse()
        except SystemError:  # where another thread parses something else, in spite of the lock
            return parse()
