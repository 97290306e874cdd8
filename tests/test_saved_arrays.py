import io
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seq2seq.saved_arrays import parse_array


def saved(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_one_thread_parses_at_a_time():
    inside, most = 0, 0
    everyone = threading.Barrier(4)

    def parse():
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        array = np.load(io.BytesIO(saved(np.arange(5))))
        inside -= 1
        return array.sum()

    def read(_):
        everyone.wait()
        return [parse_array(parse) for _ in range(50)]

    with ThreadPoolExecutor(4) as pool:
        assert {total for totals in pool.map(read, range(4)) for total in totals} == {10}
    assert most == 1


def test_what_fails_by_another_thread_is_parsed_once_more():
    outcomes = [SystemError("AST constructor recursion depth mismatch"), None]

    def parse():
        problem = outcomes.pop(0)
        if problem is not None:
            raise problem
        return "parsed"

    assert parse_array(parse) == "parsed"


def test_other_errors_are_those_of_the_file():
    with pytest.raises(EOFError):
        parse_array(lambda: np.load(io.BytesIO(), allow_pickle=False))
