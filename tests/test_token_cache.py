import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from toy_translation import (
    cached,
    corpus,
    module,
    prepared,
    sentences,
    translate,
    write,
    write_splits,
)

from datamodules.cache import content_key
from seq2seq.appearing import appearing
from seq2seq.errors import DataError
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import SubwordTokenizer


@pytest.fixture
def root(tmp_path):
    return write_splits(tmp_path / "corpus")


def test_the_cache_is_used_again(root, monkeypatch):
    prepared(root)
    monkeypatch.setattr(SubwordTokenizer, "train", None)
    monkeypatch.setattr(SubwordTokenizer, "encode_batch", None)
    prepared(root, batch_tokens=99, seed=5, num_workers=1)


@pytest.mark.parametrize("options", [{"max_source_length": 9}, {"normalization": "identity"}])
def test_other_options_have_their_own_cache(root, options):
    prepared(root)
    before = cached(root)
    prepared(root, **options)
    assert cached(root) > before


def test_an_edit_that_keeps_size_and_time_is_noticed(root):
    prepared(root)
    path = root / "val.en"
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    key = content_key([path])
    text = path.read_text()
    path.write_text(text[:-2] + ("a" if text[-2] != "a" else "e") + "\n")
    os.utime(path, ns=times)
    assert content_key([path]) != key
    before = cached(root)
    prepared(root)
    assert cached(root) > before


def test_a_half_written_cache_is_not_used(root):
    (root / "val.en").write_bytes(b"bad\n" * 10 + b"\xff\n")
    with pytest.raises(DataError, match=r"val\.en:11: invalid UTF-8"):
        prepared(root)
    assert len(cached(root)) == 1  # train
    assert not cached(root, ".partial-*")


def test_setup_without_prepared_data_says_so(root):
    with pytest.raises(DataError, match="prepare_data has not run"):
        module(root).setup("fit")


def test_the_cache_can_be_elsewhere(root, tmp_path, monkeypatch):
    prepared(root, cache_dir=str(tmp_path / "elsewhere"))
    assert list((tmp_path / "elsewhere").glob("corpus-*"))
    assert not (root / ".seq2seq_cache").exists()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.access", lambda *_: False)
    prepared(root)
    assert list((tmp_path / "home" / "seq2seq").glob("corpus-*"))


def test_an_empty_line_becomes_a_lone_end(root):
    write(root, "val", ["", "bada"])
    data = prepared(root)
    assert corpus(data, "val").source.tokens[0].tolist() == [EOS_ID]
    assert corpus(data, "val").lengths[0] == 1


def test_long_training_lines_are_dropped_and_counted(root, caplog):
    data = prepared(root, max_source_length=12, on_too_long="drop")
    kept = corpus(data, "train")
    assert 0 < len(kept) < 90
    assert kept.dropped == 90 - len(kept)
    assert kept.source.tokens.lengths.max() <= 12
    assert f"train.en: {kept.dropped} of 90 lines dropped, over 12 source" in caplog.text


def test_evaluation_lines_are_truncated_never_dropped(root, caplog):
    data = prepared(root, max_source_length=5, max_target_length=6, on_too_long="drop")
    val = corpus(data, "val")
    assert len(val) == 11
    assert (val.source.tokens.lengths.max(), val.target.tokens.lengths.max()) == (5, 6)
    assert all(val.source.tokens[row][-1] == EOS_ID for row in range(11))
    assert f"val.en: {val.truncated} of 11 lines truncated" in caplog.text
    assert [val.target.text.text(row) for row in range(11)] == [
        translate(line) for line in sentences(11, 2)
    ]


def test_long_training_lines_can_be_an_error(root):
    long = ["ba"] * 4 + [" ".join(["bada"] * 80)]
    write(root, "train", sentences(40, 1) + long)
    message = (
        r"train\.de:45: the target has \d+ tokens, the limit is 70\. Raise .*max_target_length"
    )
    with pytest.raises(DataError, match=message):
        prepared(root, max_source_length=400, max_target_length=70, on_too_long="error")


def test_a_corpus_of_nothing_but_long_lines_is_an_error(root):
    with pytest.raises(DataError, match=r"train\.en: every line is over the limit"):
        prepared(root, max_source_length=1, on_too_long="drop")


def test_memory_maps_are_pickled_as_paths(root):
    source = corpus(prepared(root), "train").source
    copy = pickle.loads(pickle.dumps(source.tokens))
    assert np.array_equal(copy[5], source.tokens[5])
    assert isinstance(source.tokens._data, np.memmap)
    assert len(pickle.dumps(source.tokens)) < 400


def test_long_lines_are_reported_in_every_run(root, caplog):
    options = {"max_source_length": 12, "on_too_long": "drop"}
    prepared(root, **options)
    first = caplog.text
    caplog.clear()
    prepared(root, **options)
    assert caplog.text == first != ""


def delete_rows(path):
    os.truncate(path, path.stat().st_size - 8)


def empty(path):
    os.truncate(path, 0)


@pytest.mark.parametrize("damage", [Path.unlink, empty])
@pytest.mark.parametrize("name", ["counts.json", "source_tokens.offsets", "target_text.data"])
def test_a_damaged_corpus_is_an_error(root, name, damage):
    prepared(root)
    for path in (root / ".seq2seq_cache").glob(f"corpus-*/{name}"):
        damage(path)
    with pytest.raises(DataError, match=r"corpus-\w+ is damaged .*Delete this folder"):
        prepared(root)


def test_a_corpus_cut_short_is_an_error(root):
    prepared(root)
    for path in (root / ".seq2seq_cache").glob("corpus-*/source_text.data"):
        delete_rows(path)
    with pytest.raises(DataError, match=r"source_text\.data does not fit"):
        module(root).setup("fit")


def test_a_damaged_tokenizer_is_an_error(root):
    prepared(root)
    (path,) = (root / ".seq2seq_cache").glob("tokenizer-*.model")
    empty(path)
    with pytest.raises(DataError, match=r"tokenizer-\w+\.model is damaged\. Delete it"):
        prepared(root)
    path.unlink()
    prepared(root)


def test_a_cache_that_cannot_be_written_is_an_error(root):
    with pytest.raises(DataError, match=r"val\.en: the cache .*Set --data\.cache_dir"):
        prepared(root, cache_dir=str(root / "val.en"))


def test_the_training_text_explains_itself_through_the_tokenizer(root):
    with (root / "train.de").open("a") as file:
        file.write("more\n")
    with pytest.raises(DataError, match=r"^\S+train\.en has 90 lines, \S+train\.de has 91\."):
        prepared(root)


def test_several_processes_may_make_the_same_cache(tmp_path):
    for kind in ("folder", "file"):
        path = tmp_path / "cache" / kind
        with appearing(path) as slow, appearing(path) as quick:
            assert slow != quick
            for partial in (slow, quick):
                if kind == "folder":
                    partial.mkdir()
                    (partial / "content").write_text("same")
                else:
                    partial.write_text("same")
            assert not path.exists()
    assert (tmp_path / "cache" / "folder" / "content").read_text() == "same"
    assert (tmp_path / "cache" / "file").read_text() == "same"
    assert len(list((tmp_path / "cache").iterdir())) == 2  # nothing is left behind
