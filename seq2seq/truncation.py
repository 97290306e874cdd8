"""Which part of a text that is too long is read."""

from typing import Literal

Keep = Literal["start", "end", "both"]
"""``both`` keeps the start and the end, half of the limit each, and leaves out the middle."""


def keep_part(ids: list[int], limit: int | None, keep: Keep) -> list[int]:
    """Return the part of a token sequence that is read.

    Args:
        ids: The whole of it, without the end of sequence.
        limit: Most tokens to keep, at least 1; None for all of them.
        keep: Which of them. Of an odd limit, ``both`` gives the start one token more.
    """
    if limit is None or len(ids) <= limit:
        return ids
    from_end = {"start": 0, "end": limit, "both": limit // 2}[keep]
    return ids[: limit - from_end] + ids[len(ids) - from_end :]
