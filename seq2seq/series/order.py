"""Whether the times of a series ascend: rows in another order are not what comes next."""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch.utilities import rank_zero_only

from seq2seq.errors import DataError

_log = logging.getLogger(__name__)

_DAYS = (
    *("%Y/%m/%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m-%d-%Y", "%d-%m-%Y"),
    *("%m/%d/%y", "%d/%m/%y", "%d.%m.%y"),
)
_HOURS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_FORMATS = ("%Y-%m", "%Y/%m", "%m/%Y", "%m.%Y", *map("".join, product(_DAYS, _HOURS)))
"""Beside numbers and ISO 8601, as for ``datetime.strptime``."""


class _Fault(NamedTuple):
    """What is wrong with times that are understood in one of the ways.

    Attributes:
        is_order: Whether it is their order, and not a time that is written in another way.
        step: Where it is, from 0.
        problem: What it is, and how to mend it.
    """

    is_order: bool
    step: int
    problem: str


def check_order(path: Path, times: Sequence[str], places: Sequence[int], part: str = "") -> None:
    """Check that each time is later than the one before.

    Understood are numbers, ISO 8601, and days such as 04/29/2024, 29/04/2024, 29.04.2024 and
    2024/04/29, with or without a time of the day; all times are written in the same way. Where
    days and months could be taken for each other, it is enough that the times ascend in one of the
    ways. The order of times that are written in another way cannot be checked: that is said in a
    warning.

    Args:
        path: The file, for messages.
        times: As the file writes them, at least one.
        places: Row of each, from 1.
        part: For messages, which part of the file it is.

    Raises:
        DataError: If a time repeats or goes back, or is written in another way than the first.
    """
    faults = []
    for read in _readers(times):
        fault = _first_fault(times, places, read)
        if fault is None:
            return
        faults.append(fault)
    if faults:
        _, step, problem = max(faults)  # of the way that gets farthest: that is the one meant
        raise DataError(f"{path}: {part}row {places[step]}: {problem}")
    _warn(
        f"{path}: {part}the times are not understood (row {places[0]}: {times[0]!r}), so their "
        "order is not checked. Rows must be sorted by time, oldest first: write times as "
        "2024-04-29 or 2024-04-29 13:05 to have that checked."
    )


@rank_zero_only
def _warn(message: str) -> None:
    _log.warning(message)


def _readers(times: Sequence[str]) -> Iterator[Callable[[str], Any]]:
    """Yield the ways to understand times by which the first or the last is one."""
    ends = {times[0], times[-1]}
    ways: list[Callable[[str], Any]] = [_number, _iso_moment]
    ways += [partial(_moment, form=form) for form in _FORMATS]
    for read in ways:
        if any(_is_read(read, time) for time in ends):
            yield read


def _is_read(read: Callable[[str], Any], time: str) -> bool:
    try:
        read(time)
    except ValueError:
        return False
    return True


def _first_fault(
    times: Sequence[str], places: Sequence[int], read: Callable[[str], Any]
) -> _Fault | None:
    moments = []
    unread = None
    for step, time in enumerate(times):
        try:
            moments.append(read(time))
        except ValueError:
            example = next((other for other in times if _is_read(read, other)), "")
            unread = _Fault(
                False,
                step,
                f"the time {time!r} is not written as {example!r} is elsewhere. Write all times in "
                "the same way.",
            )
            break
    for step, (before, after) in enumerate(pairwise(moments), start=1):
        if not before < after:
            relation = "the same as" if before == after else "before"
            return _Fault(
                True,
                step,
                f"the time {times[step]!r} is {relation} that of row {places[step - 1]}, "
                f"{times[step - 1]!r}. Sort the rows by time, oldest first, with one row for each "
                "time.",
            )
    return unread


def _number(time: str) -> Decimal:
    try:
        number = Decimal(time.replace(",", "."))
    except InvalidOperation as error:
        raise ValueError(time) from error
    if not number.is_finite():
        raise ValueError(time)
    return number


def _iso_moment(time: str) -> datetime:
    return _with_zone(datetime.fromisoformat(time))


def _moment(time: str, form: str) -> datetime:
    return _with_zone(datetime.strptime(time, form))


def _with_zone(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
