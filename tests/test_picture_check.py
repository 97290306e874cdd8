import csv
import io
import logging
import os

import pytest
from PIL import Image

from datamodules import picture_check
from datamodules.caption_files import CaptionedPicture
from datamodules.picture_check import check_pictures, good_pictures
from seq2seq.errors import ConfigError, DataError


@pytest.fixture
def pictures(tmp_path):
    """Return nine sound pictures, the third of them with two entries."""
    paths = [tmp_path / f"good{index}.png" for index in range(9)]
    for index, path in enumerate(paths):
        Image.new("RGB", (5 + index, 3)).save(path)
    return [CaptionedPicture(path, ("one",), None, "x:1") for path in [*paths, paths[2]]]


def truncated_jpeg():
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 90).save(buffer, "JPEG")
    return buffer.getvalue()[:1000]


@pytest.fixture
def bad(tmp_path):
    """Return three pictures that cannot be read: cut off, no picture, not there."""
    (tmp_path / "cut.jpg").write_bytes(truncated_jpeg())
    (tmp_path / "text.jpg").write_text("This is no picture.")
    return [
        CaptionedPicture(tmp_path / name, ("one",), None, "x:1")
        for name in ("cut.jpg", "text.jpg", "absent.jpg")
    ]


@pytest.fixture
def decoded(monkeypatch):
    """Return the list of the paths that are decoded from now on."""
    paths = []

    def open_picture(path):
        paths.append(path)
        return original(path)

    original = picture_check.open_picture
    monkeypatch.setattr(picture_check, "open_picture", open_picture)
    return paths


def check(pictures, folder, policy="error", max_bad_share=0.5, workers=2):
    check_pictures(
        pictures,
        folder / "cache",
        policy=policy,
        max_bad_share=max_bad_share,
        workers=workers,
        quarantine_file=folder / "run" / "quarantine.csv",
    )


@pytest.mark.parametrize("policy", ["error", "quarantine"])
@pytest.mark.parametrize("workers", [0, 3])
def test_sound_pictures_all_pass(tmp_path, pictures, caplog, policy, workers):
    check(pictures, tmp_path, policy, max_bad_share=0, workers=workers)
    assert good_pictures(pictures, tmp_path / "cache") == pictures
    assert not caplog.records
    assert not (tmp_path / "run").exists()


def test_each_file_is_decoded_once_and_not_again(tmp_path, pictures, decoded):
    check(pictures, tmp_path)
    assert sorted(decoded) == sorted({picture.path for picture in pictures})
    decoded.clear()
    check(pictures[::-1], tmp_path)
    assert good_pictures(pictures, tmp_path / "cache") == pictures
    assert not decoded


def test_bad_pictures_are_not_decoded_again_either(tmp_path, pictures, bad, decoded):
    check([*pictures, *bad], tmp_path, "quarantine")
    decoded.clear()
    with pytest.raises(DataError):
        check([*pictures, *bad], tmp_path, "error")
    assert not decoded


def test_a_file_that_changed_is_decoded_again(tmp_path, pictures, bad):
    check([*pictures, *bad], tmp_path, "quarantine")
    for picture in bad:
        Image.new("RGB", (4, 4)).save(picture.path)
    with pytest.raises(DataError, match="the data changed since"):
        good_pictures([*pictures, *bad], tmp_path / "cache")
    check([*pictures, *bad], tmp_path)
    assert good_pictures([*pictures, *bad], tmp_path / "cache") == [*pictures, *bad]


def test_a_new_time_alone_is_a_change(tmp_path, pictures, decoded):
    check(pictures, tmp_path)
    decoded.clear()
    os.utime(pictures[4].path, ns=(5, 5))
    check(pictures, tmp_path)
    assert decoded


def test_unchecked_pictures_are_refused(tmp_path, pictures):
    with pytest.raises(DataError, match="prepare_data has not run"):
        good_pictures(pictures, tmp_path / "cache")


def test_the_policy_error_names_the_bad_pictures_and_the_other_policy(tmp_path, pictures, bad):
    with pytest.raises(DataError, match=r"3 of 12 pictures cannot be used:") as caught:
        check([*pictures, *bad], tmp_path)
    message = str(caught.value)
    assert f"{bad[0].path}: cannot be decoded (" in message
    assert f"{bad[1].path}: is not a picture of a known format" in message
    assert f"{bad[2].path}: does not exist" in message
    assert "--data.on_bad_picture quarantine" in message


def test_a_long_list_is_cut_off(tmp_path):
    absent = [CaptionedPicture(tmp_path / f"absent{i}", ("one",), None, "") for i in range(14)]
    with pytest.raises(DataError, match=r"14 of 14 pictures(.|\n)*and 4 more\nMend") as caught:
        check(absent, tmp_path)
    assert str(caught.value).count("absent") == 10


def test_quarantine_leaves_bad_pictures_out_and_lists_them(tmp_path, pictures, bad, caplog):
    with caplog.at_level(logging.WARNING):
        check([*bad, *pictures], tmp_path, "quarantine")
    assert good_pictures([*bad, *pictures], tmp_path / "cache") == pictures
    file = tmp_path / "run" / "quarantine.csv"
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["path"] for row in rows] == sorted(str(picture.path) for picture in bad)
    assert rows[0]["reason"] == "does not exist. Give the path of a picture."
    (record,) = caplog.records
    assert record.getMessage() == (
        f"3 of 12 pictures cannot be used and are left out; {file} has the reasons."
    )


@pytest.mark.parametrize(("share", "is_accepted"), [(0.25, True), (0.24, False), (0, False)])
def test_too_many_bad_pictures_are_an_error(tmp_path, pictures, bad, share, is_accepted):
    if is_accepted:
        check([*pictures, *bad], tmp_path, "quarantine", share)
        return
    with pytest.raises(
        DataError, match=rf"3 of 12 .* share of {share}; .*quarantine\.csv .*--data\.max_bad_share"
    ):
        check([*pictures, *bad], tmp_path, "quarantine", share)
    assert (tmp_path / "run" / "quarantine.csv").is_file()


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_the_accepted_share_must_be_a_share(tmp_path, pictures, share):
    with pytest.raises(ConfigError, match=rf"--data\.max_bad_share={share} is not a share"):
        check(pictures, tmp_path, max_bad_share=share)


def test_a_list_that_cannot_be_written_is_an_error(tmp_path, pictures, bad):
    (tmp_path / "run").touch()
    with pytest.raises(DataError, match=r"quarantine\.csv: the list .* cannot be written"):
        check([*pictures, *bad], tmp_path, "quarantine")


def test_nothing_is_printed_where_there_is_no_terminal(tmp_path, pictures, capfd):
    check(pictures, tmp_path)
    assert capfd.readouterr() == ("", "")
