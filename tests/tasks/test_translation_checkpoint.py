import logging

import pytest
import torch
import toy_translation
from lightning.pytorch.callbacks import Callback

import seq2seq
from seq2seq.errors import CheckpointError, DataError
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import NOT_SAVED
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.translation import Translator

DATES = ["the 3rd of May, 2021", "7.11.1987", "MONDAY, 4 JANUARY 2038", "March 9, 1904"]


def test_a_checkpoint_is_complete_and_plain(checkpoint, trained):
    saved = torch.load(checkpoint, weights_only=True)
    for name, value in saved["hyper_parameters"].items():
        assert isinstance(value, int | float | str | None), name
    assert saved["hyper_parameters"]["hidden_size"] == 64
    assert set(saved["seq2seq"]["tokenizers"]) == {"source", "target"}
    assert saved["seq2seq"]["task"] == "Translator"
    for role, model in saved["seq2seq"]["tokenizers"].items():
        assert model.dtype == torch.uint8
        assert model.numpy().tobytes() == trained.tokenizers[role].to_bytes()


def test_what_each_run_chooses_anew_is_not_in_the_checkpoint(checkpoint):
    saved = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert not saved.keys() & {*NOT_SAVED, "source_embeddings", "target_embeddings"}
    assert {"decoding", "optimization", "teacher_forcing", "label_smoothing"} <= {*NOT_SAVED}


def test_a_loaded_checkpoint_gives_the_same_outputs(trained, predictor):
    options = SearchOptions(n_best=3, return_attention=True)
    batch = trained.collate(DATES)
    for row, other in zip(
        trained.predict_batch(batch, options),
        predictor.task.predict_batch(batch, options),
        strict=True,
    ):
        for prediction, loaded in zip(row, other, strict=True):
            assert loaded[:4] == prediction[:4]
            assert torch.equal(loaded.attention, prediction.attention)


@pytest.mark.parametrize("on_too_long", ["drop", "truncate"])
def test_a_long_line_is_cut_as_the_data_module_cuts_it(on_too_long, make_trainer, tmp_path):
    root = toy_translation.write_splits(tmp_path / "corpus")
    options = {"max_source_length": 17, "on_too_long": on_too_long, "predict": "test"}
    data = toy_translation.module(root, **options)
    trainer, path = make_trainer(max_steps=1, limit_val_batches=0), tmp_path / "cutting.ckpt"
    trainer.fit(Translator(40, embedding_size=6, hidden_size=7), data)
    trainer.save_checkpoint(path)
    [expected] = data.predict_dataloader()
    assert expected.inputs.lengths.max() == 17
    found = seq2seq.load(path, "cpu").task.collate([pair.source for pair in data.pairs("test")])
    for part, other in zip(found.inputs, expected.inputs, strict=True):
        assert torch.equal(part, other)


def test_a_checkpoint_from_before_there_was_a_limit_reads_whole_lines(checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["hyper_parameters"].pop("max_source_length") == 256
    torch.save(saved, tmp_path / "older.ckpt")
    task, line = seq2seq.load(tmp_path / "older.ckpt", "cpu").task, DATES[0] * 60
    assert task.collate([line]).inputs.lengths > 256
    assert seq2seq.load(checkpoint, "cpu").task.collate([line]).inputs.lengths == 256


class Start(Callback):
    """Notes where a training begins."""

    def on_train_start(self, trainer, pl_module):
        self.step = trainer.global_step
        self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}


def test_a_resumed_run_goes_on_where_it_was(checkpoint, make_dates, make_translator, make_trainer):
    saved = torch.load(checkpoint, weights_only=True)
    start, task = Start(), make_translator()
    trainer = make_trainer(
        max_steps=saved["global_step"] + 2, callbacks=[start], limit_val_batches=0
    )
    trainer.fit(task, make_dates(), ckpt_path=checkpoint)
    assert start.step == saved["global_step"] == 400
    assert trainer.global_step == 402
    for name, value in saved["state_dict"].items():
        assert torch.equal(start.weights[name], value), name
    assert any(
        not torch.equal(value, task.state_dict()[name]) for name, value in start.weights.items()
    )


def test_another_tokenizer_than_the_checkpoints_is_refused(
    checkpoint, make_dates, make_translator, make_trainer
):
    data = make_dates(normalization="nmt_nfkc")
    with pytest.raises(CheckpointError, match=r"another source tokenizer.*without --ckpt_path"):
        make_trainer(max_steps=500).fit(make_translator(), data, ckpt_path=checkpoint)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({}, "not one of the task Translator, but of another project"),
        ({"seq2seq": {"task": "Captioner"}}, "not one of the task Translator, but Captioner"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(entries, message):
    with pytest.raises(CheckpointError, match=message):
        Translator(13).on_load_checkpoint({"state_dict": {}, **entries})


# Pretrained embeddings.


ROW = 50


@pytest.fixture
def vectors(trained, tmp_path):
    path = tmp_path / "vectors.txt"
    [piece] = trained.tokenizers["source"].pieces([ROW])
    path.write_text(f"{piece}{' 0.25' * 48}\n", encoding="utf-8")
    return str(path)


def test_pretrained_embeddings_are_there_when_training_begins(
    vectors, make_dates, make_translator, make_trainer
):
    start = Start()
    task = make_translator(source_embeddings=vectors, optimization=Optimization())
    make_trainer(max_steps=1, callbacks=[start], limit_val_batches=0).fit(task, make_dates())
    assert start.weights["encoder.embedding.weight"][ROW].tolist() == [0.25] * 48
    assert start.weights["decoder.input_layer.weight"][ROW].tolist() != [0.25] * 48


def test_how_many_embeddings_were_filled_is_told(
    vectors, make_dates, make_translator, make_trainer, caplog, monkeypatch
):
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "propagate", True)
    task = make_translator(target_embeddings=vectors, optimization=Optimization())
    with caplog.at_level(logging.INFO):
        make_trainer(max_steps=1, limit_val_batches=0).fit(task, make_dates())
    assert "vectors.txt: filled 1 of 120 target embeddings." in caplog.text


def test_embeddings_of_another_language_are_refused(
    tmp_path, make_dates, make_translator, make_trainer
):
    path = tmp_path / "foreign.txt"
    path.write_text(f"ξένος{' 0.25' * 48}\n", encoding="utf-8")
    task = make_translator(source_embeddings=str(path))
    with pytest.raises(DataError, match=r"foreign\.txt: none of its words .* source vocabulary"):
        make_trainer(max_steps=1).fit(task, make_dates())


def test_pretrained_embeddings_do_not_overwrite_a_resumed_run(
    vectors, checkpoint, make_dates, make_translator, make_trainer
):
    start, task = Start(), make_translator(source_embeddings=vectors)
    trainer = make_trainer(max_steps=401, callbacks=[start], limit_val_batches=0)
    trainer.fit(task, make_dates(), ckpt_path=checkpoint)
    saved = torch.load(checkpoint, weights_only=True)["state_dict"]
    name = "encoder.embedding.weight"
    assert torch.equal(start.weights[name], saved[name])
