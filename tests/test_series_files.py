import gzip
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seq2seq.errors import DataError
from seq2seq.series import fit_scaling, interpolate, read_all_series, read_series

TABLE = "day,warm,cold\n2020-01-01,5.5,-1\n2020-01-02,6,1e1\n2020-01-03,+.5,0\n"
VALUES = [[5.5, -1.0], [6.0, 10.0], [0.5, 0.0]]
DAYS = ("2020-01-01", "2020-01-02", "2020-01-03")


def write(folder, content, name="a.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def saved(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def values_of(path, **options):
    return read_series(path, **options).values.tolist()


# Tables.


def test_a_table_has_values_names_and_times(tmp_path):
    series = read_series(write(tmp_path, TABLE), time_column="day")
    assert series.values.dtype == torch.float64
    assert series.values.tolist() == VALUES
    assert series.is_known.dtype == torch.bool
    assert series.is_known.all()
    assert series.names == ("warm", "cold")
    assert series.times == DAYS


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", TABLE),
        ("a.CSV", TABLE.replace("\n", "\r\n")),
        ("a.csv", b"\xef\xbb\xbf" + TABLE.encode()),
        ("a.csv", TABLE.replace(",", ", ").replace("day", '"day"').removesuffix("\n")),
        ("a.csv", TABLE + "\n  \n\n"),
        ("a.csv", TABLE.replace(",", ";")),
        ("a.csv", TABLE.replace(",", ";").replace(".", ",")),
        ("a.tsv", TABLE.replace(",", "\t")),
        ("a.txt", TABLE.replace(",", "\t").replace(".", ",")),
        ("a.csv", TABLE.replace("day", '"day, with ; and\nmore"')),
        ("a.csv.gz", gzip.compress(TABLE.encode(), mtime=0)),
    ],
)
def test_it_may_be_written_in_many_ways(tmp_path, name, content):
    time = "day, with ; and\nmore" if "more" in str(content) else "day"
    series = read_series(write(tmp_path, content, name), time_column=time)
    assert series.values.tolist() == VALUES
    assert series.times == DAYS


def test_columns_are_chosen_by_name_and_in_their_order(tmp_path):
    path = write(tmp_path, TABLE)
    series = read_series(path, columns=["cold", "warm"])
    assert series.values.tolist() == [[cold, warm] for warm, cold in VALUES]
    assert series.names == ("cold", "warm")
    assert series.times is None
    assert read_series(path, columns=["warm"], time_column="day").values.shape == (3, 1)


def test_columns_without_names_are_called_by_their_numbers(tmp_path):
    plain = write(tmp_path, "1;2,5\n3;4\n")
    assert values_of(plain) == [[1, 2.5], [3, 4]]
    assert read_series(plain).names == ("1", "2")
    assert values_of(plain, columns=["2"]) == [[2.5], [4]]
    dated = write(tmp_path, "2020-01-01,5\n2020-01-02,6\n")
    for options in ({"time_column": "1"}, {"columns": ["2"]}):
        assert values_of(dated, **options) == [[5], [6]]
    years = write(tmp_path, "day,2020,1\nmon,3,4\n")
    assert values_of(years, columns=["2020", "1"]) == [[3, 4]]
    unnamed = write(tmp_path, ",heat\n0,7\n1,8\n")
    assert read_series(unnamed).names == ("1", "heat")


def test_an_empty_line_is_a_missing_value_only_in_a_single_column(tmp_path):
    path = write(tmp_path, "heat\n1\n\n3\n\n")
    assert values_of(path, missing="interpolate") == [[1], [2], [3]]
    with pytest.raises(DataError, match=r"a\.csv:3: 1 cell\(s\), where the first row has 2\. Give"):
        read_series(write(tmp_path, "a,b\n1,2\n\n3,4\n"))


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_any_number_is_read_as_python_writes_it(tmp_path_factory, numbers):
    path = tmp_path_factory.getbasetemp() / "numbers.csv"
    path.write_text("x\n" + "".join(f"{number!r}\n" for number in numbers))
    assert values_of(path) == [[number] for number in numbers]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.csv: the file is empty"),
        ("\n \n", r"a\.csv: the file is empty"),
        ("a,b\n", r"a\.csv: has no rows of values"),
        ("a,b,a\n1,2,3\n", r"several columns have the same name: 'a'\. Rename"),
        ("a,b\n1,2\n1,2,3\n", r"a\.csv:3: 3 cell\(s\), where the first row has 2\. Give every row"),
        ("a,b\n1,2\n3,x4\n", r"a\.csv:3: column 'b' has 'x4', which is no number\. Mend it, or le"),
        ("a\n1_000\n", r"a\.csv:2: column 'a' has '1_000', which is no number"),
        ("a\n2\n٣\n", r"a\.csv:3: column 'a' has '٣', which is no number"),
        ('a,b\n"1,5",2\n', r"a\.csv:2: column 'a' has '1,5', which is no number"),
        (TABLE, r"a\.csv:2: column 'day' has '2020-01-01', .* set time_column to 'day'; or name"),
        (
            "2020-01-01,1\n2020-01-02,2\n",
            r":2: column '2020-01-01' .* by their numbers, from 1, if",
        ),
        ("a;b\n1,5;2\n3;4.5\n", r"csv:3: column 'b' has '4\.5' .* mark '\.', and line 2 has ','"),
        ("a;b\n1.234,5;2\n", r"a\.csv:2: column 'a' has '1\.234,5', which is no number"),
        ('a,b\n1,2\n"3,4\n', r"a\.csv:3: the row cannot be read \(.*\)\. Mend its quotes"),
        (b"a\n1\n\xff2\n", r"a\.csv:3: invalid UTF-8\. Convert the file"),
        ("a,b\n1,\n2,na\n", r"no value in column 'b'\. Leave it out of columns"),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_series(write(tmp_path, content))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["warm", "hot"]}, r"no column 'hot'\. Its columns are 'day', 'warm', 'cold'"),
        ({"time_column": "date"}, r"no column 'date'\. Its columns are 'day', 'warm', 'cold'"),
        ({"columns": ["warm", "warm"]}, "each once"),
        ({"columns": ["day"], "time_column": "day"}, "none that holds the times"),
        ({"columns": []}, "name one or more columns"),
    ],
)
def test_columns_that_cannot_be_chosen_are_an_error(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        read_series(write(tmp_path, TABLE), **options)


ASCENDING = [
    ["-3", "2.5", "1e1"],
    ["0", "0,5", "1"],
    ["0001-01-01", "2020-01-01 12:00"],
    ["2020-01-01T10:00+01:00", "2020-01-01T10:00Z"],
    ["2023-12", "2024-01"],
    ["11.2023", "12.2023", "01.2024"],
    ["20231231", "20240101"],
    ["2023/12/31", "2024/1/1"],
    ["12/31/2023 11:50 PM", "01/01/2024 12:10 AM"],
    ["31.12.2023 23:50", "01.01.2024 00:10"],
    ["31/12/2023", "01/01/2024"],
    ["12-31-2023 23:50:10", "01-01-2024 00:10:00"],
    ["31.1.24", "1.2.24"],
    # January to March, or its first days: either way they ascend.
    ["01/01/2024", "01/02/2024", "01/03/2024"],
    ["02/01/2024", "01/02/2024", "01/03/2024"],
]


def timed(folder, times):
    return write(folder, "when;a\n" + "".join(f"{time};1\n" for time in times))


@pytest.mark.parametrize("times", ASCENDING)
def test_times_ascend_however_they_are_written(tmp_path, times):
    path = timed(tmp_path, times)
    assert read_series(path, time_column="when").times == tuple(times)
    assert len(read_series(path, columns=["a"]).values) == len(times)
    with pytest.raises(DataError, match=r"Sort the rows by time, oldest first, with one row for"):
        read_series(timed(tmp_path, times[::-1]), time_column="when")


@pytest.mark.parametrize("times", ASCENDING)
def test_a_time_that_repeats_is_an_error_that_names_its_row(tmp_path, times):
    for step, time in enumerate(times):
        repeated = [*times[: step + 1], *times[step:]]
        expected = (
            rf"a\.csv: row {step + 3}: the time '.*' is the same as that of row {step + 2}, '"
        )
        with pytest.raises(DataError, match=expected) as caught:
            read_series(timed(tmp_path, repeated), time_column="when")
        assert str(caught.value).count(repr(time)) == 2


def test_the_first_time_that_goes_back_is_named(tmp_path):
    days = [f"{day:02}.04.2024" for day in (1, 2, 7, 5, 6, 3)]
    expected = r"row 5: the time '05\.04\.2024' is before that of row 4, '07\.04\.2024'\. Sort"
    with pytest.raises(DataError, match=expected):
        read_series(timed(tmp_path, days), time_column="when")
    array = np.array([[[1.0, 5], [2, 6], [3, 7]], [[1, 5], [3, 6], [2, 7]]])
    path = write(tmp_path, saved(array), "a.npy")
    with pytest.raises(DataError, match=r"series 2, row 3: the time '2' is before that of row 2"):
        read_all_series(path, time_column="1")


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (
            ["2024-01-01", "2024-01-32"],
            r"row 3: the time '2024-01-32' is not .* as '2024-01-01' is",
        ),
        (["1", "", "3"], r"row 3: the time '' is not written as '1' is elsewhere\. Write all"),
        (["?", "29.04.2024"], r"row 2: the time '\?' is not written as '29\.04\.2024' is"),
        (["04/29/2024", "29.04.2024"], r"row 3: the time '29\.04\.2024' is not written as '04/29"),
    ],
)
def test_times_are_all_written_in_one_way(tmp_path, times, expected):
    with pytest.raises(DataError, match=expected):
        read_series(timed(tmp_path, times), time_column="when")


def test_of_times_that_are_not_understood_it_is_said_that_their_order_is_not_checked(
    tmp_path, caplog
):
    series = read_series(timed(tmp_path, ["Tuesday", "Monday"]), time_column="when")
    assert series.times == ("Tuesday", "Monday")
    [message] = caplog.messages
    assert "a.csv: the times are not understood (row 2: 'Tuesday'), so their order" in message


def test_a_table_with_other_separators_is_told_which_are_known(tmp_path):
    path = write(tmp_path, TABLE.replace(",", "|"))
    for options in ({"time_column": "day"}, {"columns": ["warm"]}, {}):
        with pytest.raises(DataError, match="separated by commas, semicolons or tabs, and here th"):
            read_series(path, **options)
    with pytest.raises(DataError, match=r"no column 'hot'.* to some of them\.$"):
        read_series(write(tmp_path, TABLE), columns=["hot"])


def test_a_file_that_is_not_there_or_not_known_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"b\.csv: cannot be read \(.*No such file"):
        read_series(tmp_path / "b.csv")
    with pytest.raises(
        DataError, match=r"a\.xlsx: not known .* ends in \.csv, \.tsv, \.txt, \.npy"
    ):
        read_series(write(tmp_path, "", "a.xlsx"))
    with pytest.raises(DataError, match=r"a\.csv\.gz: cannot be read"):
        read_series(write(tmp_path, gzip.compress(TABLE.encode())[:-9], "a.csv.gz"))


# Missing values.

HOLES = "a,b\n,1\n2,NaN\nNA,-inf\n?,1e999\n8,11\n-,null\n"


def test_missing_values_are_named_by_column_and_row(tmp_path):
    expected = (
        r"missing or infinite \(8\): column 'a', row 2; column 'b', row 3; column 'a', row 4; "
        r"column 'b', row 4; column 'a', row 5; and 3 more\. Mend them, or set --data\.missing"
    )
    with pytest.raises(DataError, match=expected):
        read_series(write(tmp_path, HOLES))


def test_missing_values_are_filled_in_or_marked(tmp_path):
    path = write(tmp_path, HOLES)
    filled = read_series(path, missing="interpolate")
    assert filled.is_known.all()
    expected = [[2, 2, 4, 6, 8, 8], [1, 3.5, 6, 8.5, 11, 11]]
    torch.testing.assert_close(filled.values.T, torch.tensor(expected, dtype=torch.float64))
    kept = read_series(path, missing="keep")
    assert kept.is_known.T.tolist() == [
        [False, True, False, False, True, False],
        [True, False, False, False, True, False],
    ]
    assert kept.values.T.tolist() == [[0, 2, 0, 0, 8, 0], [1, 0, 0, 0, 11, 0]]


def test_a_channel_of_which_nothing_is_known_is_not_filled_in():
    values, is_known = torch.tensor([[0.0, 3], [0, 0]]), torch.tensor([[False, True], [False] * 2])
    filled, is_filled = interpolate(values, is_known)
    assert filled.tolist() == [[0, 3], [0, 3]]
    assert is_filled.tolist() == [[False, True], [False, True]]
    assert values.tolist() == [[0, 3], [0, 0]]


# Arrays.

ARRAY = np.arange(10.0).reshape(5, 2)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int16", "uint8"])
def test_an_array_is_read_with_its_columns(tmp_path, dtype):
    path = write(tmp_path, saved(ARRAY.astype(dtype)), "a.npy")
    series = read_series(path)
    assert series.values.dtype == torch.float64
    assert series.values.tolist() == ARRAY.tolist()
    assert series.names == ("1", "2")
    timed = read_series(path, time_column="1")
    assert timed.values.tolist() == ARRAY[:, 1:].tolist()
    assert timed.times == ("0", "2", "4", "6", "8")


def test_an_array_may_be_flat_compressed_or_in_an_archive(tmp_path):
    flat = write(tmp_path, saved(ARRAY[:, 1]), "a.npy")
    assert values_of(flat) == ARRAY[:, 1:].tolist()
    packed = write(tmp_path, gzip.compress(saved(np.asfortranarray(ARRAY))), "a.npy.gz")
    assert values_of(packed) == ARRAY.tolist()
    np.savez_compressed(tmp_path / "a.npz", heat=ARRAY)
    assert values_of(tmp_path / "a.npz", columns=["2"]) == ARRAY[:, 1:].tolist()


def test_an_array_may_hold_several_series(tmp_path):
    array = np.arange(30.0).reshape(3, 5, 2)
    path = write(tmp_path, saved(array), "a.npy")
    found = read_all_series(path, columns=["2", "1"])
    assert [series.values.tolist() for series in found] == array[:, :, ::-1].tolist()
    with pytest.raises(DataError, match=r"a\.npy: has 3 series, where one is needed"):
        read_series(path)
    array[1, 3, 0] = math.nan
    with pytest.raises(DataError, match=r"series 2, values .* \(1\): column '1', row 4\. Mend"):
        read_all_series(write(tmp_path, saved(array), "a.npy"))


def test_an_array_that_needs_pickle_is_refused(tmp_path):
    objects = np.array([1, "x", None], dtype=object)
    np.savez(tmp_path / "b.npz", objects)
    for path in (write(tmp_path, saved(objects), "a.npy"), tmp_path / "b.npz"):
        with pytest.raises(DataError, match="objects are refused, because reading them can run"):
            read_series(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as an array of numbers"),
        (saved(ARRAY)[:-3], "cannot be read as an array of numbers"),
        (saved(np.array(["1", "2"])), r"is an array of <U1, not of numbers"),
        (saved(np.array([1 + 2j])), "is an array of complex128, not of numbers"),
        (saved(np.float64(3)), r"0 axes \(\)\. Save it as \(time,\), \(time, columns\) or \(ser"),
        (saved(np.ones((2, 2, 2, 2))), r"4 axes \(2, 2, 2, 2\)\. Save it as"),
        (saved(np.ones(0)), "has no rows of values"),
        (saved(np.ones((0, 3, 2))), r"\(0, 3, 2\) without any series"),
        (saved(np.ones((4, 0))), "name one or more columns"),
    ],
)
def test_what_is_wrong_with_an_array_is_said(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"a\.npy: .*{message}"):
        read_series(write(tmp_path, content, "a.npy"))


def test_an_archive_needs_one_array(tmp_path):
    np.savez(tmp_path / "a.npz", heat=ARRAY, cold=ARRAY)
    with pytest.raises(DataError, match=r"needs one array, and has 2 \(heat, cold\)\. Save"):
        read_series(tmp_path / "a.npz")
    with pytest.raises(DataError, match="cannot be read as an archive"):
        read_series(write(tmp_path, saved(ARRAY), "b.npz"))


# Scaling.


def test_the_scaling_standardises_what_is_known():
    generator = torch.Generator().manual_seed(1)
    values = 1e6 + 3 * torch.randn(2, 50, 3, dtype=torch.float64, generator=generator)
    values[..., 2] = 0.1
    is_known = torch.rand(values.shape, generator=generator) < 0.8
    mean, std, names = fit_scaling(values, is_known, ("a", "b", "c"))
    assert names == ("a", "b", "c")
    for channel in range(2):
        own = values[..., channel][is_known[..., channel]]
        torch.testing.assert_close(mean[channel], own.mean())
        torch.testing.assert_close(std[channel], own.std(correction=0))
    assert std[2] == 1  # constant
