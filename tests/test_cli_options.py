"""Options of training as users set them, in one YAML file or on the command line."""

import json

import pytest
import torch
import yaml
from command_line import seq2seq

from datamodules.synthetic import generate_dates

FILES = [
    *("--data.source", "en", "--data.target", "iso", "--data.root", "."),
    *("--data.vocab_size", "80", "--trainer.max_epochs", "1"),
]


def recipe(folder, model="", callbacks=()):
    """Write a tiny recipe for files in ``folder`` and return the arguments that name it."""
    config = {
        "run_dir": "runs/tiny",
        "seed_everything": 1,
        "model": {
            "class_path": "Translator",
            "init_args": {"hidden_size": 12, "embedding_size": 8, **(model or {})},
        },
        "data": {"class_path": "TranslationDataModule", "init_args": {"root": "."}},
        "trainer": {
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": list(callbacks),
        },
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(config))
    return ["--config", "recipe.yaml", *FILES]


def write(folder, form):
    for split, count, seed in (("train", 200, 1), ("val", 20, 2), ("test", 20, 3)):
        pairs = generate_dates(count, seed)
        if form == "jsonl":
            lines = [json.dumps({"en": written, "iso": iso}) for written, iso in pairs]
        else:
            lines = ["en\tiso", *("\t".join(pair) for pair in pairs)]
        (folder / f"{split}.{form}").write_text("".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize("form", ["jsonl", "tsv"])
def test_other_file_formats_train(tmp_path, form):
    write(tmp_path, form)
    done = seq2seq(tmp_path, "fit", *recipe(tmp_path))
    assert done.status == 0, done.errors
    assert (tmp_path / "runs/tiny/best.ckpt").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.optimization.schedule", "inverse_sqrt", "--model.optimization.warmup_steps", "2"],
        ["--model.optimization.optimizer", "adamw", "--model.optimization.weight_decay", "0.1"],
        ["--model.teacher_forcing.schedule", "linear", "--model.teacher_forcing.decay_steps", "5"],
        ["--data.sampling_alpha", "0.3"],
        ["--data.source_vocab_size", "90", "--data.vocab_size", "40"],
        ["--model.tied_weights", "all", "--model.word_dropout", "0.2"],
        ["--model.cell", "lstm", "--model.attention", "none", "--model.layer_norm", "true"],
        ["--trainer.logger", "false"],
    ],
)
def test_an_option_trains(tmp_path, arguments):
    write(tmp_path, "tsv")
    done = seq2seq(tmp_path, "fit", *recipe(tmp_path), *arguments)
    assert done.status == 0, done.errors
    assert (tmp_path / "runs/tiny/last.ckpt").exists()


def test_pretrained_embeddings_are_read(tmp_path):
    write(tmp_path, "tsv")
    (tmp_path / "vectors.txt").write_text("9 " + " ".join(["0.5"] * 8) + "\n")
    arguments = ["--model.source_embeddings", "vectors.txt", "--data.vocab_size", "150"]
    # Without a step of training, so that the vectors can be found again in the checkpoint.
    frozen = ["--model.optimization.optimizer", "sgd", "--model.optimization.learning_rate", "1e-9"]
    done = seq2seq(tmp_path, "fit", *recipe(tmp_path), *arguments, *frozen)
    assert done.status == 0, done.errors
    checkpoint = torch.load(tmp_path / "runs/tiny/last.ckpt", weights_only=True)
    weight = checkpoint["state_dict"]["encoder.embedding.weight"]
    assert (weight - 0.5).abs().amax(dim=1).min() < 1e-3


def test_averaging_early_stopping_accumulation_and_plateau_go_on_together(tmp_path):
    write(tmp_path, "tsv")
    callbacks = [
        {"class_path": "EMAWeightAveraging", "init_args": {"decay": 0.9}},
        {
            "class_path": "EarlyStopping",
            "init_args": {"monitor": "val/bleu", "mode": "max", "patience": 9},
        },
    ]
    arguments = [
        *recipe(tmp_path, callbacks=callbacks),
        *("--trainer.accumulate_grad_batches", "2", "--data.batch_size", "20"),
        *("--model.optimization.schedule", "plateau", "--model.optimization.warmup_steps", "3"),
    ]
    first = seq2seq(tmp_path, "fit", *arguments, "--trainer.max_epochs", "2")
    assert first.status == 0, first.errors
    more = seq2seq(tmp_path, "fit", *arguments, "--trainer.max_epochs", "4", "--ckpt_path", "last")
    assert more.status == 0, more.errors
    steps = [line for line in more.output.splitlines() if line.startswith("epoch")]
    assert [line.split(",")[0] for line in steps] == ["epoch 2", "epoch 3"]
    last = torch.load(tmp_path / "runs/tiny/last.ckpt", weights_only=True)
    assert last["global_step"] == 4 * (last["global_step"] // 4)
    assert {"current_model_state", "averaging_state"} <= last.keys()


def test_early_stopping_on_decoded_bleu_stops(tmp_path):
    write(tmp_path, "tsv")
    options = {"monitor": "val/bleu", "mode": "max", "patience": 1, "min_delta": 101.0}
    callbacks = [{"class_path": "EarlyStopping", "init_args": options}]
    arguments = recipe(tmp_path, callbacks=callbacks)
    done = seq2seq(tmp_path, "fit", *arguments, "--trainer.max_epochs", "9")
    assert done.status == 0, done.errors
    assert "epoch 1, step" in done.output
    assert "epoch 2, step" not in done.output
