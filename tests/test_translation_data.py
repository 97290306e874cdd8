import os
import pickle
import warnings

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from datamodules.token_cache import content_key
from datamodules.translation import TranslationDataModule, collate
from seq2seq.errors import ConfigError, DataError
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizer import SubwordTokenizer

ONSETS, VOWELS, SHIFTED = "bdfgklmnprst", "aeiou", "eioua"
WORDS = [a + b + c + d for a in ONSETS for b in VOWELS for c in ONSETS[:4] for d in VOWELS[:2]]


def sentences(count, seed):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 9))) for _ in range(count)]


def translate(text):
    return text.translate(str.maketrans(VOWELS, SHIFTED))


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for split, count, seed in (("train", 90, 1), ("val", 11, 2), ("test", 7, 3)):
        write(folder, split, sentences(count, seed))
    return folder


def write(folder, split, source):
    (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in source))
    (folder / f"{split}.de").write_text("".join(f"{translate(line)}\n" for line in source))


def module(root, **options):
    return TranslationDataModule(str(root), **({"vocab_size": 40, "batch_tokens": 150} | options))


def prepared(root, **options):
    data = module(root, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def cached(root, pattern="corpus-*"):
    return {path.name for path in (root / ".seq2seq_cache").glob(pattern)}


def test_batches_hold_every_sentence_and_its_translation(root):
    data = prepared(root)
    seen = []
    for batch in data.train_dataloader():
        assert batch.references == ()
        for row, index in enumerate(batch.index.tolist()):
            source = batch.inputs.tokens[row, : batch.inputs.lengths[row]].tolist()
            assert source[-1] == EOS_ID
            text = data.tokenizers["source"].decode(source)
            assert data.tokenizers["target"].decode(batch.target[row].tolist()) == translate(text)
            assert text == sentences(90, 1)[index]
            seen.append(index)
        assert max(batch.inputs.tokens.numel(), batch.target.numel()) <= 150
    assert sorted(seen) == list(range(90))


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_gives_raw_references(root, split):
    data = prepared(root)
    expected = (root / f"{split}.de").read_text().splitlines()
    for batch in getattr(data, f"{split}_dataloader")():
        assert batch.references == tuple((expected[i],) for i in batch.index.tolist())


def test_the_tokenizer_is_trained_on_the_training_split_alone(root):
    before = prepared(root).tokenizers["source"].fingerprint
    write(root, "val", ["zzz qqq zzz qqq"] * 50)
    assert prepared(root).tokenizers["source"].fingerprint == before
    write(root, "train", sentences(80, 1))
    assert prepared(root).tokenizers["source"].fingerprint != before


def test_tokenizers_are_shared_or_separate(root):
    shared = prepared(root).tokenizers
    assert shared["source"] is shared["target"]
    separate = prepared(root, source_vocab_size=35).tokenizers
    assert (separate["source"].vocab_size, separate["target"].vocab_size) == (35, 40)


def test_given_tokenizers_are_used(root, tmp_path):
    given = SubwordTokenizer.train(sentences(300, 9), 45)
    path = tmp_path / "given.model"
    path.write_bytes(given.to_bytes())
    both = {"source_tokenizer": str(path), "target_tokenizer": str(path)}
    data = prepared(root, vocab_size=45, **both)
    assert data.tokenizers["source"].fingerprint == given.fingerprint
    assert not cached(root, "tokenizer-*")
    with pytest.raises(DataError, match=r"45 pieces, not 50\. Set --data\.vocab_size to 45"):
        prepared(root, vocab_size=50, **both)


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


def corpus(data, role):
    return data._corpora[role]


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
    assert f"train.en: {kept.dropped} line(s) dropped, over 12 source" in caplog.text


def test_evaluation_lines_are_truncated_never_dropped(root, caplog):
    data = prepared(root, max_source_length=5, max_target_length=6, on_too_long="drop")
    val = corpus(data, "val")
    assert len(val) == 11
    assert (val.source.tokens.lengths.max(), val.target.tokens.lengths.max()) == (5, 6)
    assert all(val.source.tokens[row][-1] == EOS_ID for row in range(11))
    assert f"val.en: {val.truncated} line(s) truncated" in caplog.text
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


def test_spawned_workers_give_the_same_examples(root):
    dataset = prepared(root, sampling_alpha=0.2).train_dataloader().dataset
    options = {"batch_size": 50, "collate_fn": collate}
    spawned = DataLoader(dataset, num_workers=1, multiprocessing_context="spawn", **options)
    alone = [batch.inputs.tokens.tolist() for batch in DataLoader(dataset, **options)]
    assert [batch.inputs.tokens.tolist() for batch in spawned] == alone


def test_subword_sampling_depends_on_seed_epoch_and_index(root):
    def segmentations(epoch, seed=1):
        dataset = prepared(root, sampling_alpha=0.2, seed=seed).train_dataloader().dataset
        dataset.set_epoch(epoch)
        return [dataset[index].source.tolist() for index in range(90)]

    assert segmentations(0) == segmentations(0)
    assert segmentations(0) != segmentations(1)
    assert segmentations(0) != segmentations(0, seed=2)
    tokenizer = prepared(root).tokenizers["source"]
    assert [tokenizer.decode(ids) for ids in segmentations(3)] == sentences(90, 1)


def test_workers_see_the_epoch_and_give_the_same_batches(root):
    def batches(num_workers):
        loader = prepared(root, sampling_alpha=0.2, num_workers=num_workers).train_dataloader()
        passes = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            passes.append([batch.inputs.tokens.tolist() for batch in loader])
        return passes

    alone = batches(0)
    assert batches(2) == alone
    assert alone[0] != alone[1]


def test_only_training_samples(root):
    data = prepared(root, sampling_alpha=0.9)
    first, second = ([b.inputs.tokens.tolist() for b in data.val_dataloader()] for _ in range(2))
    assert first == second


def test_prediction_reads_the_source_alone_and_keeps_the_order(root):
    (root / "new.en").write_text("".join(f"{line}\n" for line in sentences(9, 6)))
    batches = list(prepared(root, predict="new", eval_batch_size=4).predict_dataloader())
    assert [batch.index.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert all(batch.target is None and batch.references == () for batch in batches)


def test_a_missing_split_is_an_error_of_its_loader(root):
    (root / "test.en").unlink()
    (root / "test.de").unlink()
    data = prepared(root)
    assert len(data.val_dataloader()) > 0
    with pytest.raises(DataError, match="No 'test' text"):
        data.test_dataloader()
    with pytest.raises(ConfigError, match=r"set --data\.predict"):
        data.predict_dataloader()


def test_the_vocabulary_error_names_the_option_of_its_side(root):
    with pytest.raises(DataError, match=r"--data\.vocab_size to \d+ or less"):
        prepared(root, vocab_size=9999)
    with pytest.raises(DataError, match=r"--data\.source_vocab_size to \d+ or less"):
        prepared(root, source_vocab_size=9999)


def test_all_wrong_options_are_named_together():
    with pytest.raises(ConfigError) as caught:
        TranslationDataModule(
            "x", source="de", target="de", vocab_size=2, on_too_long="cut", format="xml",
            tokenizer_type="char", sampling_alpha=0.1, batch_tokens=0, source_tokenizer="a.model",
        )  # fmt: skip
    for option in ("vocab_size", "on_too_long", "format", "sampling_alpha", "batch_tokens",
                   "source and --data.target", "source_tokenizer"):  # fmt: skip
        assert f"--data.{option}" in str(caught.value)


def test_options_are_parsed_and_documented(capsys):
    parser = ArgumentParser()
    parser.add_class_arguments(TranslationDataModule, "data")
    parsed = parser.parse_args(["--data.root=x", "--data.batch_size=7", "--data.format=tsv"])
    assert TranslationDataModule(**parsed.data).batch_size == 7
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "Largest number of sentences in a training batch" in capsys.readouterr().out


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch.inputs.tokens.tolist()))
        return self.weight.sum()

    def validation_step(self, batch):
        pass

    def predict_step(self, batch):
        return batch.index.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_predicts_every_sentence_in_order(root):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    data = module(root, predict="test", eval_batch_size=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        assert trainer.predict(Recorder(), datamodule=data) == [[0, 1, 2], [3, 4, 5], [6]]


def fit(root, folder, max_steps, num_workers=0, resume=None, saving=None, limit=1.0):
    model = Recorder()
    saving = saving or {"every_n_train_steps": 1}
    checkpoint = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **saving)
    trainer = Trainer(
        max_steps=max_steps,
        limit_train_batches=limit,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[checkpoint],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        data = module(root, num_workers=num_workers, sampling_alpha=0.2)
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    return model.seen


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_training_sees_what_an_uninterrupted_run_sees(root, tmp_path, num_workers):
    per_epoch = len(prepared(root).train_dataloader())
    whole = fit(root, tmp_path / "whole", 2 * per_epoch + 3, num_workers)
    assert [epoch for epoch, _ in whole] == [0] * per_epoch + [1] * per_epoch + [2] * 3
    assert len({str(tokens) for _, tokens in whole}) == len(whole)  # each epoch differs
    # In the middle of an epoch, and at its end, where Lightning goes on with the old iterator.
    for stop in {0: (3, per_epoch, per_epoch + 2), 2: (per_epoch + 2,)}[num_workers]:
        folder = tmp_path / f"part{stop}"
        assert fit(root, folder, stop, num_workers) == whole[:stop]
        checkpoint = folder / f"step={stop}.ckpt"
        assert fit(root, folder, len(whole), num_workers, checkpoint) == whole[stop:]


@pytest.mark.parametrize("is_saved_after_validation", [True, False])
@pytest.mark.parametrize("limit", [1.0, 5])
def test_checkpoints_of_whole_epochs_resume_with_the_next(
    root, tmp_path, is_saved_after_validation, limit
):
    saving = {"every_n_epochs": 1, "save_on_train_epoch_end": not is_saved_after_validation}
    per_epoch = len(prepared(root).train_dataloader()) if limit == 1.0 else limit
    whole = fit(root, tmp_path, 2 * per_epoch + 2, saving=saving, limit=limit)
    checkpoint = tmp_path / f"step={per_epoch}.ckpt"
    resumed = fit(root, tmp_path, len(whole), resume=checkpoint, saving=saving, limit=limit)
    assert resumed == whole[per_epoch:]
