import re
from datetime import date

import pytest

from datamodules.check import read_all
from datamodules.synthetic import DatesDataModule, generate_dates
from seq2seq.errors import ConfigError, DataError

PAIRS = generate_dates(3000, seed=5)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def module(root, **options):
    options = {"train_count": 400, "val_count": 30, "test_count": 20, "vocab_size": 60} | options
    return DatesDataModule(root=str(root), **options)


def test_targets_are_iso_dates_of_two_centuries():
    years = {date.fromisoformat(target).year for _, target in PAIRS}
    assert years == set(range(1900, 2100))


def test_weekdays_are_right():
    named = [(s.split(",")[0].lower(), t) for s, t in PAIRS if "day," in s.lower()]
    assert len(named) > 100
    assert all(WEEKDAYS[date.fromisoformat(t).weekday()] == weekday for weekday, t in named)


def test_the_same_words_never_mean_two_dates():
    assert len({source.lower(): target for source, target in PAIRS}) == len(
        {(source.lower(), target) for source, target in PAIRS}
    )
    assert len({source for source, _ in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize(
    "pattern",
    [
        r"the \d+(st|nd|rd|th) of [A-Z][a-z]+, \d{4}",
        r"[A-Z][a-z]+ \d+, \d{4}",
        r"\d+ Sept\. \d{4}",
        r"[A-Z]+DAY, \d+ [A-Z]+ \d{4}",
        r"\d\d-[a-z]{3}-\d{4}",
        r"\d{1,2}\.\d{1,2}\.\d{4}",
        r"\d{4}/\d\d/\d\d",
    ],
)
def test_every_style_occurs(pattern):
    assert any(re.fullmatch(pattern, source) for source, _ in PAIRS)


@pytest.mark.parametrize(("day", "written"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th")])
def test_ordinals_are_spelled_as_in_english(day, written):
    said = {s.split()[1] for s, t in PAIRS if s.startswith("the") and int(t[-2:]) == day}
    assert said == {written}


def test_generation_is_deterministic():
    assert generate_dates(50, seed=3) == generate_dates(50, seed=3)
    assert generate_dates(50, seed=3) != generate_dates(50, seed=4)


def test_the_splits_share_no_source(tmp_path):
    module(tmp_path).prepare_data()
    splits = [
        (tmp_path / f"{name}.text").read_text().splitlines() for name in ("train", "val", "test")
    ]
    assert [len(split) for split in splits] == [400, 30, 20]
    assert len(set().union(*splits)) == 450


def test_files_are_made_anew_only_for_other_settings(tmp_path):
    module(tmp_path).prepare_data()
    before = (tmp_path / "train.text").stat().st_mtime_ns
    module(tmp_path, vocab_size=70).prepare_data()
    assert (tmp_path / "train.text").stat().st_mtime_ns == before
    first = (tmp_path / "train.text").read_text()
    module(tmp_path, seed=8).prepare_data()
    assert (tmp_path / "train.text").read_text() != first


def test_the_default_vocabulary_fits_the_default_corpus(tmp_path):
    data = DatesDataModule(root=str(tmp_path))
    data.prepare_data()
    data.setup("fit")
    assert data.tokenizers["target"].vocab_size == data.vocab_sizes["target"]
    batch = next(iter(data.val_dataloader()))
    decoded = [data.tokenizers["target"].decode(row.tolist()) for row in batch.target]
    assert decoded == [reference for (reference,) in batch.references]


def test_the_test_split_is_there_to_be_predicted(tmp_path):
    data = module(tmp_path)
    data.prepare_data()
    data.setup("predict")
    [batch] = data.predict_dataloader()
    tokens = zip(batch.inputs.tokens, batch.inputs.lengths, strict=True)
    decoded = [data.tokenizers["source"].decode(row[:length].tolist()) for row, length in tokens]
    written = (tmp_path / "test.text").read_text().lower().splitlines()
    assert decoded == written
    assert batch.target is None


def test_an_empty_split_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match=r"--data\.val_count"):
        module(tmp_path, val_count=0)


@pytest.mark.parametrize("name", ["train.iso", "val.text", "test.iso", "settings.json"])
def test_a_deleted_file_is_made_anew(tmp_path, name):
    module(tmp_path).prepare_data()
    before = {path.name: path.read_text() for path in tmp_path.glob("*.*") if path.is_file()}
    (tmp_path / name).unlink()
    module(tmp_path).prepare_data()
    after = {path.name: path.read_text() for path in tmp_path.glob("*.*") if path.is_file()}
    assert len(after) == 7
    assert after == before


def test_more_dates_than_can_be_found_are_an_error(tmp_path):
    with pytest.raises(ConfigError, match="1,000,000 or less together"):
        module(tmp_path, train_count=10**7)


def test_a_root_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/dates: the dates .*Set --data\.root"):
        module(tmp_path / "file" / "dates").prepare_data()


def test_the_check_of_the_files_writes_them_first(tmp_path):
    data = module(tmp_path / "new")
    found = read_all(data.iter_readings())
    assert len(found) == 4  # the side that is to be predicted, too
    assert all(finding.problem is None for finding in found)
