import pytest
from jsonargparse import ArgumentParser
from torch.utils.data import DataLoader
from toy_translation import cached, module, prepared, sentences, translate, write, write_splits

from datamodules import TranslationDataModule
from datamodules.translation_dataset import collate
from seq2seq.errors import ConfigError, DataError
from seq2seq.sequences import EOS_ID
from seq2seq.tokenizers import SubwordTokenizer


@pytest.fixture
def root(tmp_path):
    return write_splits(tmp_path / "corpus")


def test_batches_hold_every_sentence_and_its_translation(root):
    data = prepared(root)
    seen = []
    for batch in data.train_dataloader():
        assert batch.references == ()
        for row, index in enumerate(batch.indices.tolist()):
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
        assert batch.references == tuple((expected[i],) for i in batch.indices.tolist())


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
    assert [batch.indices.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
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
            tokenizer_type="char", normalization="nfd", sampling_alpha=0.1, batch_tokens=0,
            source_tokenizer="a.model",
        )  # fmt: skip
    for option in ("vocab_size", "on_too_long", "format", "normalization", "sampling_alpha",
                   "batch_tokens", "source and --data.target", "source_tokenizer"):  # fmt: skip
        assert f"--data.{option}" in str(caught.value)


def test_options_are_parsed_and_documented(capsys):
    parser = ArgumentParser()
    parser.add_class_arguments(TranslationDataModule, "data")
    parsed = parser.parse_args(["--data.root=x", "--data.batch_size=7", "--data.format=tsv"])
    assert TranslationDataModule(**parsed.data).batch_size == 7
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    assert "Largest number of sentences in a training batch" in capsys.readouterr().out


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pairs_are_the_text_of_the_files(root, split):
    data = module(root, max_source_length=3, on_too_long="drop")
    source = (root / f"{split}.en").read_text().splitlines()
    pairs = list(data.pairs(split))
    assert [pair.source for pair in pairs] == source
    assert [pair.target for pair in pairs] == list(map(translate, source))


def test_testing_without_the_training_split_needs_its_tokenizer(root):
    before = prepared(root).tokenizers["source"]
    for name in ("train.en", "train.de"):
        (root / name).unlink()
    with pytest.raises(DataError, match=r"No 'train' text .*--data\.source_tokenizer"):
        prepared(root)
    (path,) = (root / ".seq2seq_cache").glob("tokenizer-*.model")
    data = prepared(root, source_tokenizer=str(path), target_tokenizer=str(path))
    assert data.tokenizers["source"].fingerprint == before.fingerprint
    assert sum(len(batch.indices) for batch in data.test_dataloader()) == 7


def test_a_given_tokenizer_must_be_able_to_sample(root, tmp_path):
    path = tmp_path / "given.model"
    path.write_bytes(SubwordTokenizer.train(sentences(300, 9), 40, "bpe").to_bytes())
    both = {"source_tokenizer": str(path), "target_tokenizer": str(path)}
    with pytest.raises(DataError, match=r"not a unigram model.*--data\.sampling_alpha=0"):
        prepared(root, sampling_alpha=0.2, **both)
