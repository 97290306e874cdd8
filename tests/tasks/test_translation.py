import itertools
from types import SimpleNamespace
from typing import get_args

import pytest
import torch
from torch.nn.functional import log_softmax

from seq2seq.batches import Batch, TextInput
from seq2seq.decoders.recurrent import Feed
from seq2seq.errors import ConfigError
from seq2seq.nn.attention import AttentionKind
from seq2seq.nn.recurrent import Cell
from seq2seq.search import SearchOptions
from seq2seq.sequences import EOS_ID, pad_sequences, shift_right
from seq2seq.tasks.options import Optimization, TeacherForcing
from seq2seq.tasks.translation import Translator

VOCAB, SOURCE_VOCAB, EMBEDDING, HIDDEN = 13, 17, 6, 7
ALL = list(itertools.product(*map(get_args, (Cell, AttentionKind, Feed))))
DATES = ["the 3rd of May, 2021", "7.11.1987", "MONDAY, 4 JANUARY 2038", "March 9, 1904"]


def translator(vocab_size=VOCAB, **options):
    sizes = {"embedding_size": EMBEDDING, "hidden_size": HIDDEN, "dropout": 0.0}
    return Translator(vocab_size, **{**sizes, **options})


def text_batch(sources=((5, 9, 7, EOS_ID), (6, EOS_ID), (8, 5, EOS_ID)), targets=None):
    targets = targets or ((4, 5, EOS_ID), (6, 7, 8, 9, EOS_ID), (EOS_ID,))
    lengths = torch.tensor([len(row) for row in sources])
    inputs = TextInput(pad_sequences(sources), lengths)
    return Batch(inputs, pad_sequences(targets), torch.arange(len(sources)))


def attach(task, step=0, rank=0, **attributes):
    """Stand in for a trainer, as far as a training step asks for one."""
    task._trainer = SimpleNamespace(global_step=step, global_rank=rank, world_size=1, **attributes)
    task.log = lambda *_, **__: None
    return task


# Shape of the model.


@pytest.mark.parametrize(("cell", "attention", "feed"), ALL)
def test_every_parameter_gets_a_gradient(cell, attention, feed):
    task = translator(
        source_vocab_size=SOURCE_VOCAB,
        cell=cell,
        attention=attention,
        feed=feed,
        encoder_layers=2,
        bidirectional=attention != "dot",  # dot products need a memory as wide as the state
        tied_weights="none",
        layer_norm=True,
    )
    task.compute_loss(text_batch()).total.backward()
    for name, parameter in task.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_tied_weights_are_one_parameter():
    free, output, every = (translator(tied_weights=tied) for tied in ("none", "output", "all"))
    embeddings = [task.decoder.input_layer.weight for task in (free, output, every)]
    assert free.decoder.output_layer.weight is not embeddings[0]
    assert output.decoder.output_layer.weight is embeddings[1]
    assert output.encoder.embedding.weight is not embeddings[1]
    assert every.decoder.output_layer.weight is embeddings[2]
    assert every.encoder.embedding.weight is embeddings[2]


def test_each_tie_saves_one_matrix():
    free, output, every = (
        sum(p.numel() for p in translator(tied_weights=tied).parameters())
        for tied in ("none", "output", "all")
    )
    assert free - output == output - every == VOCAB * EMBEDDING


def test_tied_weights_are_still_one_after_an_optimiser_step():
    task = translator(tied_weights="all")
    before = task.encoder.embedding.weight.clone()
    task.compute_loss(text_batch()).total.backward()
    torch.optim.SGD(task.parameters(), lr=0.1).step()
    assert not torch.equal(task.encoder.embedding.weight, before)
    assert torch.equal(task.decoder.output_layer.weight, task.encoder.embedding.weight)


# Options.


def test_all_problems_of_the_options_come_together():
    with pytest.raises(ConfigError) as error:
        translator(
            source_vocab_size=SOURCE_VOCAB,
            cell="sru",
            attention="cosine",
            feed="front",
            tied_weights="all",
            encoder_layers=0,
            decoder_layers=0,
            hidden_size=0,
            dropout=1.0,
            label_smoothing=-0.1,
            validation_beam_size=0,
            max_length_ratio=-1,
            max_source_length=0,
            bleu_tokenize="klingon",
        )
    for problem in (
        "cell is 'sru'; choose one of rnn, gru, lstm",
        "attention is 'cosine'",
        "feed is 'front'",
        "tied_weights 'all' needs one vocabulary",
        "encoder_layers=0 must be at least 1",
        "at least one layer, not 0",
        "hidden_size=0 must be at least 1",
        "dropout=1.0 must be at least 0 and less than 1",
        "label_smoothing=-0.1 must be",
        "validation_beam_size=0 must be at least 1",
        "max_length_ratio=-1 must not be negative",
        "max_source_length=0 must be at least 1",
        "bleu_tokenize='klingon' is no tokenisation",
    ):
        assert problem in str(error.value)


def test_unequal_widths_under_dot_attention_come_with_the_other_problems():
    with pytest.raises(ConfigError, match=r"(?s)\(7 wide\) .* \(14 wide\).*word_dropout=2"):
        translator(attention="dot", word_dropout=2)


def test_variational_dropout_needs_all_steps_at_once():
    with pytest.raises(ConfigError, match=r"feed 'input' .* despite variational_dropout"):
        translator(feed="input", variational_dropout=True)


@pytest.mark.parametrize("forcing", [{"ratio": 0.9}, {"schedule": "linear"}])
def test_variational_dropout_refuses_sampling_by_step(forcing):
    options = {"variational_dropout": True, "dropout": 0.1}
    by_step = TeacherForcing(method="step", **forcing)
    with pytest.raises(ConfigError, match=r"teacher_forcing\.method 'step' .*variational_dropout"):
        translator(teacher_forcing=by_step, **options)
    translator(teacher_forcing=TeacherForcing(method="step"), **options)
    translator(teacher_forcing=TeacherForcing(method="parallel", **forcing), **options)


def test_all_problems_of_the_optimisation_come_together():
    with pytest.raises(ConfigError) as error:
        Optimization(
            optimizer="adm",
            learning_rate=float("nan"),
            weight_decay=-1,
            beta1=1.0,
            momentum=-0.5,
            schedule="steps",
            warmup_steps=-2,
            minimum_ratio=1.5,
            plateau_patience=-3,
            plateau_reduction=1.0,
        )
    for option in (
        "optimizer='adm'",
        "learning_rate=nan",
        "weight_decay=-1",
        "beta1=1.0",
        "momentum=-0.5",
        "schedule='steps'",
        "warmup_steps=-2",
        "minimum_ratio=1.5",
        "plateau_patience=-3",
        "plateau_reduction=1.0",
    ):
        assert f"optimization.{option}" in str(error.value)


def test_validation_searches_even_where_predictions_are_sampled():
    task = translator(decoding=SearchOptions(method="sample", n_best=3), validation_beam_size=1)
    options = task.validation_decoding
    assert (options.method, options.beam_size, options.n_best) == ("beam", 1, 1)


def test_an_unknown_tie_is_named():
    with pytest.raises(ConfigError, match=r"tied_weights is 'both'; choose one of none, output"):
        translator(tied_weights="both")


def test_a_tokenizer_of_another_size_is_refused(make_dates, make_translator, make_trainer):
    with pytest.raises(ConfigError, match=r"tokenizer has 120 pieces, the model expects 119"):
        make_trainer(max_steps=1).fit(make_translator(119), make_dates())


# Loss and teacher forcing.


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_the_loss_of_a_batch_is_that_of_its_tokens(label_smoothing):
    task = attach(translator(label_smoothing=label_smoothing))
    batch = text_batch()
    alone = [
        task.compute_loss(Batch(TextInput(*(part[row] for part in batch.inputs)), target, None))
        for row, target in ((slice(i, i + 1), batch.target[i : i + 1]) for i in range(3))
    ]
    tokens = sum(int(loss.tokens) for loss in alone)
    assert tokens == 3 + 5 + 1
    torch.testing.assert_close(
        task.training_step(batch, 0), sum(loss.total for loss in alone) / tokens
    )
    torch.testing.assert_close(
        task.compute_loss(batch).negative_log_likelihood,
        sum(loss.negative_log_likelihood for loss in alone),
    )


def test_further_padding_does_not_change_the_loss():
    task, batch = translator(), text_batch()
    wider = TextInput(torch.nn.functional.pad(batch.inputs.tokens, (0, 2)), batch.inputs.lengths)
    padded = Batch(wider, torch.nn.functional.pad(batch.target, (0, 3)), batch.indices)
    torch.testing.assert_close(task.compute_loss(padded), task.compute_loss(batch))


def scheduled_loss(method, step=3, rank=0, seed=1, batch_number=0):
    torch.manual_seed(1)
    task = translator(teacher_forcing=TeacherForcing(ratio=0.4, method=method, seed=seed))
    batch = text_batch(
        sources=[[5, 6, 7, EOS_ID]] * 4, targets=[[4, 5, 6, 7, 8, 9, 10, EOS_ID]] * 4
    )
    torch.manual_seed(99 + step)  # the global generator must not matter
    return attach(task, step, rank).training_step(batch, batch_number).item()


@pytest.mark.parametrize("method", ["parallel", "step"])
def test_scheduled_sampling_depends_on_seed_step_batch_and_rank_alone(method):
    loss = scheduled_loss(method)
    assert scheduled_loss(method) == loss
    others = {
        scheduled_loss(method, step=4),
        scheduled_loss(method, rank=1),
        scheduled_loss(method, seed=2),
        scheduled_loss(method, batch_number=1),
    }
    assert len(others | {loss}) == 5


def test_a_schedule_lets_the_forcing_ratio_fall():
    forcing = TeacherForcing(schedule="linear", decay_steps=10, minimum=0.25)
    task, logged = translator(teacher_forcing=forcing), {}
    for step, ratio in ((0, 1.0), (5, 0.5), (10, 0.25)):
        attach(task, step).log = lambda name, value, **_: logged.update({name: value})
        task.training_step(text_batch(), 0)
        assert logged["train/teacher_forcing_ratio"] == pytest.approx(ratio)


# Search and the parallel pass.


@pytest.mark.parametrize(
    "options",
    [{"n_best": 3}, {"beam_size": 1}, {"method": "sample", "n_best": 2}, {"max_length": 4}],
)
def test_the_score_of_an_output_is_its_forced_score(trained, options):
    batch = trained.collate(DATES)
    for row, hypotheses in enumerate(trained.decode(batch, SearchOptions(**options))):
        inputs = TextInput(*(part[row : row + 1] for part in batch.inputs))
        for hypothesis in hypotheses:
            target = torch.tensor([hypothesis.tokens + [EOS_ID] * hypothesis.is_finished])
            features = trained.decoder(shift_right(target), trained.encoder(inputs)).features
            log_probs = log_softmax(trained.decoder.score(features), dim=-1)[0]
            forced = log_probs.gather(1, target.T).squeeze(1)
            found = torch.tensor(hypothesis.token_log_probs)
            torch.testing.assert_close(found, forced, atol=1e-4, rtol=1e-4)
            assert hypothesis.score == pytest.approx(found.mean().item(), abs=1e-4)
            loss = trained.compute_loss(Batch(inputs, target, None)).negative_log_likelihood
            assert loss.item() == pytest.approx(-found.sum().item(), abs=1e-3)


def test_an_output_is_no_longer_than_a_multiple_of_its_source():
    task = translator(max_length_ratio=1.5)
    assert task.max_lengths(text_batch()).tolist() == [6 + 10, 3 + 10, 5 + 10]


@pytest.mark.parametrize("options", [{"beam_size": 1}, {}, {"method": "sample"}])
def test_an_output_is_no_shorter_than_the_minimum_however_short_its_source(trained, options):
    batch = trained.collate(["7", DATES[0]])
    assert trained.max_lengths(batch).min() < 40
    for [best] in trained.decode(batch, SearchOptions(min_length=40, **options)):
        assert len(best.tokens) >= 40


def test_a_prediction_has_a_row_of_attention_per_token_and_no_padding(trained):
    batch = trained.collate(DATES)
    options = SearchOptions(return_attention=True)
    for row, [prediction] in enumerate(trained.predict_batch(batch, options)):
        assert prediction.tokens[-1] == "</s>"
        assert prediction.source_tokens[-1] == "</s>"
        assert len(prediction.source_tokens) == int(batch.inputs.lengths[row])
        shape = (len(prediction.tokens), len(prediction.source_tokens))
        assert prediction.attention.shape == shape
        torch.testing.assert_close(prediction.attention.sum(dim=1), torch.ones(shape[0]))


# The checkpoint.
