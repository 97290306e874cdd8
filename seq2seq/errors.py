"""The errors a user can mend, each a ``ValueError`` so that callers may catch broadly."""


class ConfigError(ValueError):
    """An option, or a combination of options, that cannot work."""


class DataError(ValueError):
    """A file or a value in the user's data that cannot be used."""


class CheckpointError(ValueError):
    """A checkpoint that is damaged, foreign, unsafe or made for another task."""


class SearchError(ValueError):
    """A step function whose results cannot be searched."""


def raise_together(problems: list[str], error: type[ValueError], heading: str) -> None:
    """Raise one error that lists every problem; do nothing when there is none.

    Args:
        problems: One sentence per problem, each saying what is wrong and how to mend it.
        error: The class to raise.
        heading: First line of the message, used when there are several problems.

    Raises:
        ValueError: ``error``, when ``problems`` is not empty.
    """
    if len(problems) == 1:
        raise error(problems[0])
    if problems:
        raise error("\n  - ".join([heading, *problems]))


def find_user_error(error: BaseException | None) -> ValueError | None:
    """Return the error of this module that ``error`` is or was raised from; None if there is none.

    Libraries wrap what a constructor raises; a user wants to read what was wrong, not the wrapping.
    """
    while error is not None:
        if isinstance(error, ConfigError | DataError | CheckpointError | SearchError):
            return error
        error = error.__cause__ or error.__context__
    return None


def printable(text: str) -> str:
    """Return a text that can be written anywhere: names of files in it need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
