import os
import pickle

import pytest
from toy_reviews import contents, module, prepared, reviews, write_jsonl, write_splits

from seq2seq.errors import DataError
from seq2seq.tokenizers import WordTokenizer


@pytest.fixture
def source(tmp_path):
    return write_splits(tmp_path / "reviews")


def cached(source, pattern):
    return {path.name for path in (source / ".seq2seq_cache").glob(pattern)}


def test_the_cache_is_used_again(source, monkeypatch):
    prepared(source)
    before = cached(source, "*")
    monkeypatch.setattr(WordTokenizer, "train", None)
    monkeypatch.setattr(WordTokenizer, "encode_batch", None)
    prepared(source, batch_size=9, num_workers=1)
    assert cached(source, "*") == before


def test_other_options_tokenise_anew_and_only_where_they_must(source):
    prepared(source)
    prepared(source, max_length=3)
    counts = {kind: len(cached(source, f"{kind}-*")) for kind in ("reviews", "tokenizer", "corpus")}
    assert counts == {"reviews": 1, "tokenizer": 1, "corpus": 2}
    prepared(source, seed=2)
    assert len(cached(source, "reviews-*")) == 2


def test_an_edit_is_noticed(source):
    prepared(source)
    path = source / "test.jsonl.gz"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    write_jsonl(path, reviews(5, 7))
    os.utime(path, ns=times)
    assert contents(prepared(source), "test") == reviews(5, 7)


def test_a_half_written_cache_is_not_used(source):
    write_jsonl(source / "test.jsonl.gz", [*reviews(6, 2), ("...", "good")])
    with pytest.raises(DataError, match="without a word"):
        prepared(source)
    assert not cached(source, "corpus-*")
    assert not cached(source, ".partial-*")


def test_setup_without_prepared_data_says_so(source):
    with pytest.raises(DataError, match="prepare_data has not run"):
        module(source).setup("fit")


@pytest.mark.parametrize("kind", ["reviews", "tokenizer"])
def test_a_damaged_cache_is_named(source, kind):
    prepared(source)
    (name,) = cached(source, f"{kind}-*")
    (source / ".seq2seq_cache" / name).write_bytes(b"{}")
    with pytest.raises(DataError, match=rf"{kind}-\w+\.\w+ is damaged.*made anew"):
        prepared(source)


def test_the_cache_can_be_elsewhere(source, tmp_path):
    prepared(source, cache_dir=str(tmp_path / "elsewhere"))
    assert list((tmp_path / "elsewhere").glob("corpus-*"))
    assert not (source / ".seq2seq_cache").exists()


def test_workers_get_paths_and_not_the_reviews(source):
    sizes = []
    for count in (60, 600):
        write_jsonl(source / "train.jsonl", reviews(count, 1))
        dataset = prepared(source).train_dataloader().dataset
        sizes.append(len(pickle.dumps(dataset.corpus)))
    assert sizes[0] == sizes[1]


def test_workers_give_the_same_batches(source):
    alone, with_workers = (
        [
            batch.inputs.tokens.tolist()
            for batch in prepared(source, num_workers=n).train_dataloader()
        ]
        for n in (0, 2)
    )
    assert alone == with_workers
