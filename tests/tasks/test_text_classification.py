import itertools
from typing import get_args

import pytest
import torch
from torch.utils.data import DataLoader
from toy_sentiment import (
    LABELS,
    LINES,
    TOKENIZER,
    WORDS,
    ToyTexts,
    classifier,
    save_classifier,
    texts,
)

import seq2seq
from seq2seq.batches import NOTHING
from seq2seq.errors import ConfigError, DataError
from seq2seq.nn.pooling import PoolingKind
from seq2seq.nn.recurrent import Cell
from seq2seq.search import SearchOptions
from seq2seq.tasks.base import NOT_SAVED
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.text_classification import TextClassifier

GREEDY = SearchOptions(beam_size=1)
ALL = list(itertools.product(get_args(Cell), get_args(PoolingKind)))
PAIRS = texts(5, seed=4)


def probabilities(task, lines):
    found = task.predict_batch(task.collate(lines), GREEDY)
    return torch.stack([best.probabilities for [best] in found])


# The model.


@pytest.mark.parametrize(("cell", "pooling"), ALL)
@pytest.mark.parametrize("attention", ["none", "additive"])
def test_every_parameter_gets_a_gradient(cell, pooling, attention):
    options = {"encoder_layers": 2, "layer_norm": True}
    task = classifier(cell=cell, pooling=pooling, attention=attention, **options)
    task.compute_loss(ToyTexts().batch(PAIRS)).total.backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("cell", "pooling"), ALL)
@pytest.mark.parametrize("options", [{"layer_norm": True}, {"attention": "bilinear"}])
def test_padding_and_the_rest_of_the_batch_change_nothing(cell, pooling, options):
    task = classifier(cell=cell, pooling=pooling, label_steps=2, **options)
    lines = [text for text, _ in PAIRS]
    together = probabilities(task, lines)
    for row, line in enumerate(lines):
        torch.testing.assert_close(probabilities(task, [line])[0], together[row])


def test_poolings_and_directions_differ():
    lines = [text for text, _ in PAIRS]
    found = [
        probabilities(classifier(pooling=pooling, bidirectional=is_both), lines)
        for pooling in get_args(PoolingKind)
        for is_both in (False, True)
    ]
    assert len({tuple(each.flatten().tolist()) for each in found}) == len(found)


def test_all_problems_of_the_options_come_together():
    with pytest.raises(ConfigError) as error:
        classifier(
            cell="sru",
            pooling="sum",
            attention="cosine",
            class_weights="equal",
            num_classes=1,
            label_steps=0,
            decoder_size=0,
            dropout=1.0,
            word_dropout=-1,
            max_length=0,
            keep="middle",
        )
    for problem in (
        "cell is 'sru'; choose one of rnn, gru, lstm",
        "pooling is 'sum'; choose one of last, mean, max, attention",
        "attention is 'cosine'",
        "class_weights is 'equal'",
        "num_classes=1 must be at least 2",
        "label_steps=0 must be at least 1",
        "decoder_size=0 must be at least 1",
        "dropout=1.0 must be",
        "word_dropout=-1 must be",
        "max_length=0 must be at least 1",
        "keep is 'middle'; choose one of start, end, both",
    ):
        assert problem in str(error.value)


# What it learns.


def learn(steps, relabel=None, **options):
    """Train on fresh texts, and return the share of other texts with all labels right."""
    data = ToyTexts()
    task = classifier(**{"embedding_size": 12, "hidden_size": 16, "decoder_size": 16, **options})
    optimizer = torch.optim.Adam(task.train().parameters(), lr=0.01)

    def batch(count, seed):
        pairs = texts(count, seed, length=12)
        made = data.batch(pairs)
        return made if relabel is None else made._replace(target=relabel(pairs, made.target))

    for step in range(steps):
        loss = task.compute_loss(batch(32, step))
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        optimizer.step()
    unseen = batch(200, steps)
    found = task.eval().decode(unseen, SearchOptions(beam_size=1, max_length=task.label_steps))
    right = [
        best.tokens == target for [best], target in zip(found, unseen.target.tolist(), strict=True)
    ]
    return sum(right) / len(right)


def test_which_word_comes_first_is_learned():
    assert learn(60) >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "pooling"), ALL)
def test_which_word_comes_first_is_learned_by_any_cell_and_pooling(cell, pooling):
    assert learn(250, cell=cell, pooling=pooling) >= 0.95


def with_length(pairs, target):
    """Add the label whether a text is long."""
    is_long = torch.tensor([[len(text.split()) > 6] for text, _ in pairs])
    return torch.cat([target, target.min() + is_long.long()], dim=1)


def test_two_labels_are_learned_with_attention():
    options = {"label_steps": 2, "attention": "additive", "pooling": "mean"}
    assert learn(100, with_length, **options) >= 0.85


# Training with Lightning.


def test_a_training_validates_and_tests(make_trainer):
    task, data = classifier(class_weights="balanced", optimization=Optimization()), ToyTexts()
    trainer = make_trainer(max_epochs=2)
    trainer.fit(task.train(), data)
    assert task._weights.tolist() == pytest.approx([4 / 6, 4 / 2])
    names = {"loss", "accuracy", "macro_f1", "auroc", "calibration_error"}
    assert {f"val/{name}" for name in names} <= set(trainer.callback_metrics)
    [scores] = trainer.test(task, data, verbose=False)
    assert 0 <= scores["test/accuracy"] <= 1
    assert task.confusion.sum() == 16


def test_a_text_without_a_word_is_scored_like_any_other(make_trainer):
    class Sparse(ToyTexts):
        def test_dataloader(self):
            pairs = [("", "dark"), *texts(3, 5)]
            return DataLoader(pairs, batch_size=4, collate_fn=self.batch)

    task = classifier(optimization=Optimization())
    [scores] = make_trainer().test(task, Sparse(), verbose=False)
    assert task.confusion.sum() == 4
    assert scores["test/loss"] > 0


def test_vectors_of_words_are_there_when_training_begins(tmp_path, make_trainer):
    path = tmp_path / "vectors.txt"
    path.write_text(f"{WORDS[1]}{' 0.25' * 6}\n")
    task = classifier(source_embeddings=str(path), optimization=Optimization(learning_rate=1e-9))
    make_trainer(max_steps=1, limit_val_batches=0).fit(task.train(), ToyTexts())
    [row] = TOKENIZER.encode(WORDS[1])
    torch.testing.assert_close(task.encoder.embedding.weight[row], torch.full((6,), 0.25))
    path.write_text(f"schwarz{' 0.25' * 6}\n")
    with pytest.raises(DataError, match=r"--model\.source_embeddings to vectors of that language"):
        make_trainer(max_steps=1).fit(task, ToyTexts())


def test_a_vocabulary_of_another_size_is_refused(make_trainer):
    task = classifier(vocab_size=99, optimization=Optimization())
    with pytest.raises(ConfigError, match=r"source tokenizer has 10 pieces, the model expects 99"):
        make_trainer(max_steps=1).fit(task, ToyTexts())


# Prediction.


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("start", "white thin grey"), ("end", "deep pale black"), ("both", "white thin black")],
)
def test_a_long_text_is_cut_as_in_training(keep, expected, make_trainer):
    task = classifier(optimization=Optimization())
    make_trainer(max_steps=1, limit_val_batches=0).fit(task.train(), ToyTexts(3, keep))
    assert (task.hparams["max_length"], task.hparams["keep"]) == (3, keep)
    batch = task.eval().collate(["white thin grey deep pale black", "thin", "pale thin grey"])
    assert task.source_tokens(batch, 0) == [*expected.split(), "</s>"]
    assert batch.inputs.lengths.tolist() == [4, 2, 4]


def test_lines_without_a_word_have_no_label():
    task = classifier()
    batch = task.collate(LINES)
    found = [best for [best] in task.predict_batch(batch, GREEDY)]
    assert [best == NOTHING for best in found] == [not TOKENIZER.encode(line) for line in LINES]
    # A word that is not in the vocabulary is a word.
    assert found[LINES.index("☃")].text in LABELS
    assert found[LINES.index("...")] == NOTHING


def test_attention_is_over_the_words_of_the_line():
    task = classifier(attention="additive", label_steps=2)
    options = SearchOptions(beam_size=1, return_attention=True)
    [[_], [best]] = task.predict_batch(task.collate(["thin " * 9, "white black"]), options)
    assert best.source_tokens == ["white", "black", "</s>"]
    torch.testing.assert_close(best.attention.sum(dim=1), torch.ones(2))
    assert best.attention.shape == (2, 3)


def test_a_checkpoint_is_complete_and_plain(tmp_path):
    path = save_classifier(tmp_path, max_length=4, keep="end", source_embeddings="gone.txt")
    saved = torch.load(path, weights_only=True)
    for name, value in saved["hyper_parameters"].items():
        assert isinstance(value, int | float | str | None), name
    assert not saved["hyper_parameters"].keys() & {*NOT_SAVED, "source_embeddings"}
    assert set(saved["seq2seq"]["tokenizers"]) == {"source", "target"}
    predictor = seq2seq.load(path, "cpu")
    assert isinstance(predictor.task, TextClassifier)
    assert (predictor.task.max_length, predictor.task.keep) == (4, "end")


def test_a_loaded_checkpoint_gives_the_same_labels_in_any_batch(tmp_path):
    options = {"pooling": "max", "cell": "lstm", "attention": "bilinear", "num_classes": 3}
    path = save_classifier(tmp_path, **options)
    task = classifier(**options)
    task.load_state_dict(torch.load(path, weights_only=True)["state_dict"])
    lines = [text for text, _ in texts(9, 6)]
    expected = task.predict_batch(task.collate(lines), SearchOptions(n_best=2))
    predictor = seq2seq.load(path, "cpu")
    for size in (1, 2, 64):
        found = list(predictor.stream(lines, SearchOptions(n_best=2), size))
        for row, other in zip(found, expected, strict=True):
            assert [each.text for each in row] == [each.text for each in other]
            torch.testing.assert_close(row[0].probabilities, other[0].probabilities)
    assert len({row[0].text for row in expected}) > 1
