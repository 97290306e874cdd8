"""The folder of ``seq2seq predict``: rows of many processes, and what may be wrong with them."""

import os
import stat
from contextlib import suppress

import pytest

from seq2seq.errors import ConfigError, DataError
from seq2seq.prediction_folder import Row, RowFolder, write_row


@pytest.fixture
def output(tmp_path):
    return tmp_path / "out.txt"


def fill(output, *shares):
    """Begin a folder with a file for each process's places; return it."""
    folder = RowFolder(output)
    folder.begin({}, (), is_resumed=False)
    for rank, places in enumerate(shares):
        with folder.add(rank) as file:
            for place in places:
                write_row(file, Row(place, f"row {place}"))
    return folder


def resume(output, inputs=()):
    return RowFolder(output).begin({}, inputs, is_resumed=True).tolist()


def whole(count):
    return "".join(f"row {place}\n" for place in range(count))


def test_rows_of_all_processes_are_put_in_order(output):
    folder = fill(output, [0, 2, 4], [1, 3], [])
    assert resume(output) == [0, 1, 2, 3, 4]
    folder.finish(5)
    assert output.read_text() == whole(5)
    assert not folder.path.exists()


def test_a_row_that_two_processes_have_written_counts_once(output):
    folder = fill(output, [0, 2, 3, 4], [1, 3, 5], [3, 4])
    assert resume(output) == [0, 1, 2, 3, 4, 5]
    folder.finish(6)
    assert output.read_text() == whole(6)


@pytest.mark.parametrize(
    ("shares", "found"),
    [
        ([[0, 1], [2, 3]], 4),
        ([[0, 1, 2], [4]], 3),
        ([[1, 2, 3, 4], [5]], 0),
        ([[0, 2, 4], [1, 3, 5]], 6),
        ([[0, 1, 3], [1, 3, 4]], 2),
    ],
)
def test_where_there_is_not_one_row_for_each_input_nothing_is_written(output, shares, found):
    folder = fill(output, *shares)
    with pytest.raises(
        DataError, match=rf"first {found} inputs, and there are 5\. .* that all processes share"
    ):
        folder.finish(5)
    assert not output.exists()
    assert folder.path.exists()


@pytest.mark.parametrize("line", ["\0\0\n", '{"place": 1}\n', "[]\n"])
def test_a_damaged_file_is_named(output, line):
    folder = fill(output, [0, 1])
    [rows] = folder.path.glob("*.jsonl")
    rows.write_text(line + rows.read_text())
    with pytest.raises(DataError, match=rf"{rows.name}: is damaged\. Delete .*{rows.name}, and"):
        resume(output)
    rows.unlink()
    assert resume(output) == []


def test_a_file_that_cannot_be_read_is_named(output):
    folder = fill(output)
    (folder.path / "rank1-1.jsonl").mkdir()
    for read in (lambda: resume(output), lambda: folder.finish(1)):
        with pytest.raises(DataError, match=r"rank1-1\.jsonl: cannot be read: Is a directory"):
            read()


def test_there_may_be_more_files_than_can_be_open(output):
    resource = pytest.importorskip("resource")
    count = 300
    # In the order of their names they are far from that of the input; some rows are there twice.
    folder = fill(output, *([place, place + 1] for place in range(count)))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[0], 2048), limits[1]))
    held = []
    try:
        with suppress(OSError):
            while True:
                held.append(os.dup(0))
        for _ in range(100):
            os.close(held.pop())
        assert resume(output) == list(range(count + 1))
        folder.finish(count + 1)
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert output.read_text() == whole(count + 1)


def test_others_may_read_what_the_user_lets_them(output):
    mask = os.umask(0o027)
    try:
        folder = fill(output, [0])
        [rows] = folder.path.glob("*.jsonl")
        assert stat.S_IMODE(rows.stat().st_mode) == 0o640
        folder.finish(1)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o640


def test_changed_inputs_are_told_by_their_names_sizes_and_times(output):
    first, second = output.with_name("1.png"), output.with_name("2.png")
    for path in (first, second):
        path.write_text("a picture")
        os.utime(path, (5, 5))
    RowFolder(output).begin({}, [first, second], is_resumed=False)
    assert resume(output, [first, second]) == []
    for changed in ([second, first], [first], [first, second, second], []):
        with pytest.raises(ConfigError, match=r"--data\.predict was '2 files \(SHA-256 of their"):
            resume(output, changed)
    os.utime(second, (6, 6))
    with pytest.raises(ConfigError, match=r"--data\.predict was"):
        resume(output, [first, second])
