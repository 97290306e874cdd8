"""What time it will be: the times of a series, continued at their own step."""

import re
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

_MONTH = re.compile(r"(\d{4})-(\d{2})(-\d{2})?", re.ASCII)
_DAYS = {"%Y-%m-%d": re.compile(r"\d{4}-\d{2}-\d{2}"), "%Y%m%d": re.compile(r"\d{8}")}
_SECONDS = re.compile(r"\d[T ]\d{2}:\d{2}:\d{2}")
_SHORTEST_MONTH = 28


def continue_times(times: Sequence[str], count: int) -> tuple[str, ...] | None:
    """Return the times that come next, written as those that are known.

    Understood are numbers, and dates and times of ISO 8601, that are equally far apart. Dates may
    also be whole months apart, such as the first days of months.

    Args:
        times: Of the steps that are known, as a file writes them.
        count: How many to go on.

    Returns:
        As many times; None where there is no constant step, or only one time.
    """
    if len(times) < 2:
        return None
    # Numbers last: 20240131 is a day.
    for follow in (_follow_months, _follow_moments, _follow_numbers):
        found = follow(times, count)
        if found is not None:
            return found
    return None


def _follow_months(times: Sequence[str], count: int) -> tuple[str, ...] | None:
    known = [match for match in map(_MONTH.fullmatch, times) if match is not None]
    days = {match[3] for match in known}
    if len(known) < len(times) or len(days) > 1:
        return None
    day: str = days.pop() or ""
    months = [12 * int(match[1]) + int(match[2]) - 1 for match in known]
    step = _constant_step(months)
    if step is None or int(day[1:] or 1) > _SHORTEST_MONTH:
        return None
    following = (months[-1] + step * ahead for ahead in range(1, count + 1))
    return tuple(f"{month // 12:04}-{month % 12 + 1:02}{day}" for month in following)


def _follow_moments(times: Sequence[str], count: int) -> tuple[str, ...] | None:
    try:
        moments = [datetime.fromisoformat(time) for time in times]
        step = _constant_step(moments)
        following = [moments[-1] + step * ahead for ahead in range(1, count + 1)]
    # TypeError: there is no step, or only some of them have a time zone.
    except (ValueError, TypeError, OverflowError):
        return None
    return tuple(_written(moment, times[-1]) for moment in following)


def _written(moment: datetime, example: str) -> str:
    """Return a moment in the format of an example."""
    for name, pattern in _DAYS.items():
        if pattern.fullmatch(example):
            return moment.strftime(name)
    separator = "T" if "T" in example else " "
    text = moment.isoformat(separator, "auto" if _SECONDS.search(example) else "minutes")
    return text.replace("+00:00", "Z") if example.endswith("Z") else text


def _follow_numbers(times: Sequence[str], count: int) -> tuple[str, ...] | None:
    try:
        numbers = [Decimal(time) for time in times]
        step = _constant_step(numbers)
    except InvalidOperation:
        return None
    if step is None or not step.is_finite():
        return None
    return tuple(str(numbers[-1] + step * ahead) for ahead in range(1, count + 1))


def _constant_step(values: Sequence[Any]) -> Any:
    """Return the step between values where it is the same all along, else None."""
    steps = {after - before for before, after in pairwise(values)}
    return steps.pop() if len(steps) == 1 else None
