import logging
import os
import re

import numpy as np
import pytest
from jsonargparse import ArgumentParser
from toy_reviews import (
    contents,
    corpus,
    module,
    prepared,
    reviews,
    write_folders,
    write_jsonl,
    write_splits,
    write_table,
)

from datamodules import ReviewDataModule
from datamodules.check import read_all
from seq2seq.errors import ConfigError, DataError
from seq2seq.sequences import EOS_ID, PAD_ID, UNK_ID
from seq2seq.tokenizers import FIRST_LABEL_ID, SubwordTokenizer

SPLITS = ("train", "val", "test")


@pytest.fixture
def source(tmp_path):
    return write_splits(tmp_path / "reviews")


def examples(data, role):
    """Return the tokens, target and reference of each review of a split."""
    found = {}
    for batch in getattr(data, f"{role}_dataloader")():
        tokens, lengths = batch.inputs
        for row, index in enumerate(batch.indices.tolist()):
            assert index not in found
            assert (tokens[row, lengths[row] :] == PAD_ID).all()
            ids = tokens[row, : lengths[row]].tolist()
            found[index] = ids, batch.target[row].tolist(), batch.references[row]
    return [found[index] for index in range(len(found))]


# What a batch has.


@pytest.mark.parametrize("role", SPLITS)
def test_a_batch_has_tokens_labels_and_positions(source, role):
    data = prepared(source, vocab_size=19, val_share=0.2, batch_size=7, eval_batch_size=5)
    expected = contents(data, role)
    for (ids, target, references), (text, label) in zip(
        examples(data, role), expected, strict=True
    ):
        assert ids[-1] == EOS_ID
        assert data.tokenizers["source"].decode(ids) == text
        assert target == [FIRST_LABEL_ID + ("bad", "good").index(label)]
        assert references == (label,)


def test_splits_are_those_of_the_source_and_a_share_of_each_class(source):
    data = prepared(source, val_share=0.2)
    train, val = contents(data, "train"), contents(data, "val")
    assert sorted(train + val) == sorted(reviews(60, 1))
    assert [sum(label == name for _, label in val) for name in ("bad", "good")] == [6, 6]
    assert contents(data, "test") == reviews(11, 2)
    assert data.label_counts().tolist() == [24, 24]
    assert data.look_up("test", 3) == reviews(11, 2)[3][0]


def test_a_val_split_of_the_source_is_the_validation(source):
    write_table(source / "val.csv", reviews(9, 3))
    data = prepared(source, val_share=0.5)
    assert contents(data, "val") == reviews(9, 3)
    assert contents(data, "train") == reviews(60, 1)


def test_training_batches_are_shuffled_and_of_like_length(source):
    data = prepared(source, batch_size=4)
    loader = data.train_dataloader()
    orders, wasted = [], []
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert max(len(batch.indices) for batch in batches) == 4
        orders.append([index for batch in batches for index in batch.indices.tolist()])
        wasted += [(batch.inputs.tokens == PAD_ID).float().mean().item() for batch in batches]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(54))
    assert np.mean(wasted) < 0.05
    labels = [contents(data, "train")[index][1] for index in orders[0]]
    assert labels != sorted(labels)
    assert max(len(batch.indices) for batch in data.test_dataloader()) == 11


def test_several_labels_are_several_steps(tmp_path):
    rows = [
        (text, f"{label}; {'long' if len(text) > 20 else 'short'}")
        for text, label in reviews(30, 5)
    ]
    write_table(tmp_path / "r.csv", rows)
    data = prepared(tmp_path / "r.csv", num_classes=4, label_steps=2)
    assert data.tokenizers["target"].names == ("bad", "good", "long", "short")
    for ids, target, (text,) in examples(data, "train"):
        assert data.tokenizers["target"].decode(target) == text
        assert target[0] in (4, 5)
        assert target[1] == (6 if text.endswith("long") else 7)
        assert ids[-1] == EOS_ID
    assert data.label_counts().sum() == 2 * len(corpus(data, "train"))


def test_validation_reviews_join_training_when_asked(source):
    alone, both = (prepared(source, train_on_val=value) for value in (False, True))
    assert contents(both, "train") == reviews(60, 1)
    assert contents(both, "val") == contents(alone, "val")
    # What was chosen with the vocabulary stays chosen.
    assert both.tokenizers["source"].fingerprint == alone.tokenizers["source"].fingerprint


def test_labels_can_be_named_by_numbers(tmp_path):
    rows = [(text, int(label == "good")) for text, label in reviews(20, 1)]
    path = write_jsonl(tmp_path / "r.jsonl", rows)
    assert prepared(path).tokenizers["target"].names == ("0", "1")
    names = {"0": "no", "1": "yes"}
    assert prepared(path, labels=names).tokenizers["target"].names == ("no", "yes")
    assert prepared(path, labels={0: "no", 1: "yes"}).layout.label_names == names
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(ReviewDataModule, "data")
    options = f"{{source: {path}, num_classes: 2, labels: {{0: poor, 1: fine}}}}"
    parsed = parser.instantiate_classes(parser.parse_string(f"data: {options}"))
    assert parsed.data.layout.label_names == {"0": "poor", "1": "fine"}


# Vocabulary.


def test_the_vocabulary_is_made_of_training_reviews_alone(source):
    before = prepared(source).tokenizers["source"].fingerprint
    write_jsonl(source / "test.jsonl.gz", [("zzz " * 50, "bad"), ("zzz", "good")])
    data = prepared(source)
    assert data.tokenizers["source"].fingerprint == before
    assert examples(data, "test")[1][0] == [UNK_ID, EOS_ID]


def test_the_vocabulary_has_the_most_frequent_words(source):
    words = " ".join(text for text, _ in contents(prepared(source), "train")).split()
    counts = {word: words.count(word) for word in set(words)}
    expected = sorted(counts, key=lambda word: (-counts[word], word))[:10]
    assert prepared(source).tokenizers["source"].pieces(range(4, 14)) == expected


def test_a_vocabulary_with_room_for_more_words_says_so(source, monkeypatch):
    messages = []
    monkeypatch.setattr("datamodules.word_vocabulary.rank_zero_info", messages.append)
    full = prepared(source, vocab_size=19).tokenizers["source"]
    assert (full.vocab_size, messages) == (19, [])
    data = prepared(source, vocab_size=22)
    tokenizer = data.tokenizers["source"]
    assert (tokenizer.vocab_size, list(tokenizer.unused_ids)) == (22, [19, 20, 21])
    assert tokenizer.pieces(range(19)) == full.pieces(range(19))
    [message] = messages
    assert "has words for 19 ids of the vocabulary" in message
    assert "other 3 stay unused. --data.vocab_size=19 is enough" in message
    data.prepare_data()  # from the cache
    assert messages == [message] * 2


def test_subwords_are_an_option(source):
    data = prepared(source, vocabulary="bpe", vocab_size=60)
    assert isinstance(data.tokenizers["source"], SubwordTokenizer)
    for (ids, *_), (text, _) in zip(examples(data, "test"), contents(data, "test"), strict=True):
        assert data.tokenizers["source"].decode(ids) == text


def test_numbers_are_words_of_their_own(tmp_path):
    generator = np.random.default_rng(1)
    rows = generator.integers(1, 9, (30, 7))
    rows[:, 5:] = 0
    arrays = {"x_train": rows, "y_train": np.arange(30) % 2}
    np.savez(tmp_path / "r.npz", **arrays, x_test=rows[:4], y_test=np.arange(4) % 2)
    data = prepared(tmp_path / "r.npz", vocab_size=12)
    texts = [" ".join(map(str, row[:5])) for row in rows[:4]]
    assert [data.tokenizers["source"].decode(ids) for ids, *_ in examples(data, "test")] == texts
    with pytest.raises(ConfigError, match=r"numbers of words: set --data\.vocabulary=word"):
        prepared(tmp_path / "r.npz", vocabulary="bpe")


# What is read of a review.


@pytest.mark.parametrize(
    ("keep", "first", "last"), [("start", 5, 0), ("end", 0, 5), ("both", 3, 2)]
)
def test_of_a_long_review_that_part_is_read(source, keep, first, last, caplog):
    whole = prepared(source)
    caplog.set_level(logging.INFO)
    data = prepared(source, max_length=5, keep=keep)
    for role in SPLITS:
        for (ids, *_), (full, *_) in zip(examples(data, role), examples(whole, role), strict=True):
            words = full[:-1]
            expected = words if len(words) <= 5 else words[:first] + words[len(words) - last :]
            assert ids == [*expected, EOS_ID]
    count = sum(len(text.split()) > 5 for text, _ in contents(data, "test"))
    part = {"both": "start and end"}.get(keep, keep)
    assert f"of {count} of 11 test reviews only the {part} is read, 5 tokens" in caplog.text
    assert contents(data, "train") == contents(whole, "train")
    assert (data.max_length, data.keep) == (5, keep)  # which the model takes over


def test_reviews_without_a_word_are_an_error_or_dropped(source, caplog):
    empty = [("", "bad"), ("<br /> ... ", "good")]
    write_jsonl(source / "test.jsonl.gz", [*reviews(6, 2), *empty])
    message = (
        r"without a word \(2\): test\.jsonl\.gz:7, test\.jsonl\.gz:8\. .*--data\.on_empty=drop"
    )
    with pytest.raises(DataError, match=message):
        prepared(source)
    data = prepared(source, on_empty="drop")
    assert contents(data, "test") == reviews(6, 2)
    assert "2 of 8 test reviews left out, as they have no word" in caplog.text
    assert "train reviews" not in caplog.text


def test_a_split_without_reviews_says_how_to_get_some(source):
    data = prepared(source, val_share=0.0)
    with pytest.raises(DataError, match=r"the val split has no reviews\. .*--data\.val_share"):
        data.val_dataloader()
    assert len(prepared(source, val_share=0.5).val_dataloader()) == 1


# Prediction.


@pytest.mark.parametrize("name", ["new.txt", "new.jsonl"])
def test_prediction_keeps_the_order_and_empty_lines(source, tmp_path, name):
    texts = [*(text for text, _ in reviews(7, 8)), "", "dull zzz"]
    if name == "new.txt":
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts))
    else:
        write_jsonl(tmp_path / name, [(text, None) for text in texts])
    data = prepared(source, vocab_size=19, predict=str(tmp_path / name), eval_batch_size=4)
    batches = list(data.predict_dataloader())
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert all(batch.target is None and batch.references == () for batch in batches)
    rows = [row for batch in batches for row in batch.inputs.tokens.tolist()]
    decoded = [data.tokenizers["source"].decode(row) for row in rows]
    assert decoded == [*texts[:-1], "dull \u2047"]
    assert data.look_up("predict", 8) == "dull zzz"


def test_without_texts_to_classify_the_option_is_named(source):
    with pytest.raises(ConfigError, match=r"set --data\.predict"):
        prepared(source).predict_dataloader()
    with pytest.raises(DataError, match=r"absent: does not exist"):
        prepared(source, predict="absent")


# What can be wrong.


def test_another_number_of_classes_is_refused_with_the_right_one(source):
    with pytest.raises(DataError, match=r"2 labels \('bad', 'good'\), not 3\. Set --data\.num_cl"):
        module(source, num_classes=3).prepare_data()


def test_a_label_that_training_lacks_is_refused(source):
    write_jsonl(source / "test.jsonl.gz", [("dull", "bad"), ("fair", "mixed")])
    with pytest.raises(DataError, match=r"training lacks \(1\): 'mixed' \(test: test\.jsonl\.gz:2"):
        module(source).prepare_data()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 1}, r"--data\.num_classes is 1: set it to 2 or more"),
        ({"max_length": 0}, r"--data\.max_length is 0: set it to 1 or more"),
        ({"keep": "tail"}, r"--data\.keep is 'tail': choose from start, end, both"),
        ({"on_empty": "keep"}, r"--data\.on_empty is 'keep': choose from error, drop"),
        ({"vocabulary": "words"}, r"--data\.vocabulary is 'words': choose from word, unigram"),
        ({"val_share": 0.6, "test_share": 0.4}, r"leave nothing to train on"),
        ({"val": "test"}, r"'train', 'test', 'test': give each split a name of its own"),
    ],
)
def test_options_that_cannot_work_are_named(options, message):
    with pytest.raises(ConfigError, match=message):
        module("anywhere", **options)
    with pytest.raises(ConfigError, match=r"(?s)cannot work:.*seed is -1.*") as raised:
        module("anywhere", **options, seed=-1)
    assert len(str(raised.value).splitlines()) == 3


def test_every_file_is_checked(tmp_path):
    files = {"a/1.txt": "dull", "a/2.txt": "", "b/1.txt": b"\xff", "b/2.txt": "great"}
    source = write_folders(tmp_path / "r", files)
    (tmp_path / "new.txt").write_bytes(b"fine\n\xff\n")

    def problems(**options):
        found = read_all(module(source, **options).iter_readings())
        return {os.path.relpath(each.name, tmp_path): each.problem for each in found}

    found = problems(predict=str(tmp_path / "new.txt"))
    names = ["r/a/1.txt", "r/a/2.txt", "r/b/1.txt", "r/b/2.txt", "r (labels)", "new.txt"]
    assert list(found) == names
    assert found["r/a/1.txt"] is found["r/b/2.txt"] is None
    assert found["r/a/2.txt"].startswith("reviews without a word (1): a/2.txt")
    assert found["r/b/1.txt"].startswith("invalid UTF-8")
    assert "line 2: invalid UTF-8" in found["new.txt"]
    assert found["r (labels)"].endswith("there are files that cannot be used. Mend those first.")
    assert problems(on_empty="drop")["r/a/2.txt"] is None


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ({"test": "worse"}, {}, r"labels that training lacks \(1\): 'worse' \(test: test\.jsonl"),
        ({"train": "worse"}, {}, r"the training reviews have 3 labels \(.*\), not 2\. Set"),
        ({}, {"num_classes": 5}, r"the training reviews have 2 labels .*num_classes=2\."),
        ({}, {"label_steps": 2}, "another number of labels than 2"),
        ({}, {}, None),
    ],
)
def test_labels_that_cannot_be_used_together_are_found_by_the_check(
    tmp_path, labels, options, message
):
    for split in ("train", "test"):
        rows = [*reviews(20, 1), *([("so so", labels[split])] if split in labels else [])]
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
    data = module(tmp_path, **options)
    *files, last = read_all(data.iter_readings())
    assert [finding.problem for finding in files] == [None, None]
    assert last.name == f"{tmp_path} (labels)"
    if message is None:
        assert last.problem is None
        return
    assert re.search(message, last.problem)
    with pytest.raises(DataError, match=message):
        data.prepare_data()
