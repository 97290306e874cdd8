import pytest

from seq2seq.errors import CheckpointError, ConfigError, DataError, SearchError, find_user_error


@pytest.mark.parametrize("kind", [ConfigError, DataError, CheckpointError, SearchError])
def test_what_a_user_can_mend_is_found_under_its_wrapping(kind):
    inner, outer = kind("mend me"), RuntimeError("wrapped")
    outer.__cause__ = inner
    assert find_user_error(outer) is inner


def test_what_a_user_cannot_mend_is_not_found():
    assert find_user_error(ValueError("a defect")) is None
