from itertools import chain

import pytest
from toy_captions import (
    ENTRIES,
    VOCAB,
    Entry,
    module,
    of_split,
    prepared,
    write_captions,
    write_corpus,
    write_pictures,
)

from datamodules import CaptionDataModule
from seq2seq.errors import DataError
from seq2seq.sequences import UNK_ID
from seq2seq.tokenizers import WordTokenizer
from seq2seq.words import caption_words


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("captions"))


def test_words_come_from_the_training_captions_alone(root):
    tokenizer = prepared(root).tokenizers["target"]
    texts = [text for entry in of_split("train") for text in entry.captions]
    assert set(tokenizer.pieces(range(4, VOCAB))) == set(chain(*map(caption_words, texts)))
    assert UNK_ID not in tokenizer.encode("there is a blue square on the left")
    assert tokenizer.encode("zebra ostrich") == [UNK_ID, UNK_ID]


def test_subwords_come_from_the_training_captions_alone(root):
    tokenizer = prepared(root, vocabulary="char", vocab_size=22).tokenizers["target"]
    assert UNK_ID not in tokenizer.encode("there is a blue square on the left")
    assert UNK_ID in tokenizer.encode("zebra")


def test_subwords_are_trained_anew_for_another_training_split(tmp_path):
    root = write_corpus(tmp_path, "flickr")
    options = {"vocabulary": "char", "vocab_size": 18, "val_share": 0.3, "test_share": 0.3}
    own = {}
    for role in ("val", "test"):
        name, captions, _ = of_split(role)[0]
        entry = Entry(f"own-{name}", captions, role)
        write_pictures(root / "images", [entry])
        own[f"{role}_captions"] = str(write_captions(tmp_path / f"{role}.csv", "csv", [entry]))
    [everything] = root.glob("captions.*")
    whole = CaptionDataModule(str(everything), str(root / "images"), **options, **own)
    whole.prepare_data()
    whole.setup("fit")
    part = prepared(root, **options)
    assert len(part.training_references()) < len(whole.training_references()) == len(ENTRIES)
    assert part.tokenizers["target"].fingerprint != whole.tokenizers["target"].fingerprint


def test_rare_words_are_left_out(root):
    tokenizer = prepared(root, minimum_count=3, vocab_size=12).tokenizers["target"]
    assert tokenizer.encode("a blue square on left")[3:] == [UNK_ID, UNK_ID]


def test_a_vocabulary_with_room_for_more_words_says_so(root, monkeypatch):
    messages = []
    monkeypatch.setattr("datamodules.word_vocabulary.rank_zero_info", messages.append)
    tokenizer = prepared(root, minimum_count=3, vocab_size=15).tokenizers["target"]
    assert list(tokenizer.unused_ids) == [12, 13, 14]
    assert tokenizer.encode("a blue square on left")[3:] == [UNK_ID, UNK_ID]
    [message] = messages
    assert "other 3 stay unused. --data.vocab_size=12 is enough" in message


def test_captions_can_be_learned_as_they_stand(root):
    options = {"vocabulary": "bpe", "vocab_size": 40, "batch_size": 6}
    for style, expected in (("raw", "A red square."), ("plain", "a red square")):
        data = prepared(root, caption_style=style, **options)
        [batch] = data.train_dataloader()
        first = batch.indices.tolist().index(0)
        decoded = data.tokenizers["target"].decode(batch.target[batch.rows == first][0].tolist())
        assert decoded == expected
        assert batch.references[first][0] == "A red square."


def test_a_vocabulary_can_be_given(root, tmp_path):
    words = WordTokenizer(["red", "zebra"])
    (tmp_path / "words").write_bytes(words.to_bytes())
    data = prepared(root, tokenizer=str(tmp_path / "words"), vocab_size=6)
    assert data.tokenizers["target"].fingerprint == words.fingerprint
    with pytest.raises(DataError, match=r"words has 6 pieces, not 7\. Set --data\.vocab_size to 6"):
        module(root, tokenizer=str(tmp_path / "words"), vocab_size=7).prepare_data()
