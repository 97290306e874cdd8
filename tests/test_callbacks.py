import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from datamodules.synthetic import DatesDataModule
from seq2seq.batches import Batch
from seq2seq.callbacks import SampleLogger, Throughput
from seq2seq.figures import attention_figure
from seq2seq.search import SearchOptions
from seq2seq.tasks.options import Optimization

SIGNATURE = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:"


@pytest.fixture
def logger(tmp_path):
    return TensorBoardLogger(tmp_path, name=None, version="")


def logged_text(logger, name):
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    return [
        event.tensor_proto.string_val[0].decode()
        for event in events.Tensors(f"{name}/text_summary")
    ]


def logged_images(logger):
    logger.experiment.flush()
    events = EventAccumulator(logger.log_dir).Reload()
    return {name: events.Images(name)[0] for name in events.Tags()["images"]}


# Samples and signatures.


def test_validation_shows_samples_scores_and_signatures(
    trained, make_dates, make_trainer, logger, capsys
):
    trainer = make_trainer(logger=logger, callbacks=[SampleLogger(samples=3)])
    [scores] = trainer.validate(trained, make_dates(), verbose=False)
    printed = capsys.readouterr().out
    for name in ("bleu", "chrf", "exact_match", "loss"):
        assert f"val/{name} {scores[f'val/{name}']:.4g}" in printed
    assert printed.count("(reference: ") == 3
    assert printed.count(f"val/bleu: {SIGNATURE}") == 1
    assert printed.count("val/chrf: nrefs:1|") == 1
    [samples] = logged_text(logger, "val/samples")
    [signatures] = logged_text(logger, "val/signatures")
    assert samples.count("(reference: ") == 3
    assert all(line in printed for line in [*samples.split("\n\n"), *signatures.split("\n\n")])


@pytest.fixture
def odd_lengths(tmp_path_factory):
    """Return a data module whose shortest validation dates come last, and three to a batch."""
    root = tmp_path_factory.mktemp("odd")
    data = DatesDataModule(
        str(root), train_count=8000, val_count=60, test_count=50, vocab_size=120, eval_batch_size=3
    )
    data.prepare_data()
    pairs = sorted(data.pairs("val"), key=lambda pair: -len(pair.source))[::6]
    for side in ("source", "target"):
        lines = "".join(f"{getattr(pair, side)}\n" for pair in pairs)
        (root / f"odd.{getattr(data, side)}").write_text(lines, encoding="utf-8")
    data.splits["val"] = "odd"
    return data, pairs


@pytest.mark.parametrize("samples", [4, 99])
def test_the_samples_are_the_first_of_the_corpus_in_its_order(
    odd_lengths, trained, predictor, make_trainer, logger, capsys, samples
):
    data, pairs = odd_lengths
    trainer = make_trainer(logger=logger, callbacks=[SampleLogger(samples)])
    trainer.validate(trained, data, verbose=False)
    outputs = predictor.predict([pair.source for pair in pairs], beam_size=1)
    expected = [
        f"{output}   (reference: {pair.target})"
        for output, pair in zip(outputs, pairs, strict=True)
    ][:samples]
    shown = [line.strip() for line in capsys.readouterr().out.splitlines() if "(reference" in line]
    assert shown == expected
    assert logged_text(logger, "val/samples") == ["\n\n".join(expected)]


def test_the_figures_are_those_of_the_samples(
    odd_lengths, trained, make_trainer, logger, monkeypatch
):
    data, pairs = odd_lengths
    drawn = []
    monkeypatch.setattr(
        "seq2seq.tasks.base.attention_figure",
        lambda prediction: drawn.append(prediction) or attention_figure(prediction),
    )
    trainer = make_trainer(logger=logger, callbacks=[SampleLogger(3)])
    trainer.validate(trained, data, verbose=False)
    options = replace(trained.validation_decoding, return_attention=True)
    for prediction, pair in zip(drawn, pairs[:3], strict=True):
        [[expected]] = trained.predict_batch(trained.collate([pair.source]), options)
        assert prediction.source_tokens == expected.source_tokens
        assert prediction.tokens == expected.tokens
    assert sorted(logged_images(logger)) == [f"val/attention/{place}" for place in range(3)]


def test_samples_of_other_ranks_are_shown_too(trained, monkeypatch, capsys):
    batch = trained.collate(["7.11.1987", "May 3, 1950"])
    outputs = [best for best, *_ in trained.predict_batch(batch, SearchOptions())]
    trainer = SimpleNamespace(
        sanity_checking=False,
        is_global_zero=True,
        world_size=2,
        loggers=[],
        callback_metrics={},
        current_epoch=0,
        global_step=0,
    )
    ranks = []
    for indices, references in (((2, 7), (("two",), ("seven",))), ((0, 1), (("zero",), ("one",)))):
        ranks.append(SampleLogger(3))
        share = batch._replace(indices=torch.tensor(indices), references=references)
        ranks[-1].on_validation_batch_end(trainer, trained, outputs, share, 0)

    def gather(shares, share):
        assert share is ranks[0]._found
        shares[:] = [rank._found for rank in ranks]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    ranks[0].on_validation_end(trainer, trained)
    printed = capsys.readouterr().out.split("(reference: ")[1:]
    assert [part.split(")")[0] for part in printed] == ["zero", "one", "two"]


def test_a_sanity_check_shows_nothing(make_translator, make_dates, make_trainer, capsys):
    trainer = make_trainer(
        callbacks=[SampleLogger()], num_sanity_val_steps=-1, max_epochs=1, limit_train_batches=1
    )
    trainer.fit(make_translator(optimization=Optimization()), make_dates(eval_batch_size=30))
    printed = capsys.readouterr().out
    assert printed.count("(reference: ") == 4
    assert printed.count("epoch 0, step 1: ") == 1
    assert "step 0" not in printed


def test_a_model_without_attention_has_no_figures(
    make_translator, trained, make_dates, make_trainer, logger
):
    task = make_translator(attention="none", optimization=Optimization())
    task.tokenizers = trained.tokenizers
    trainer = make_trainer(logger=logger, callbacks=[SampleLogger()])
    trainer.validate(task, make_dates(), verbose=False)
    assert logged_text(logger, "val/samples")
    assert not logged_images(logger)


def test_signatures_are_shown_once_in_a_training(make_translator, make_dates, make_trainer, capsys):
    trainer = make_trainer(
        callbacks=[SampleLogger()], max_epochs=2, limit_train_batches=1, limit_val_batches=1
    )
    trainer.fit(make_translator(attention="none", optimization=Optimization()), make_dates())
    printed = capsys.readouterr().out
    assert printed.count("val/exact_match ") == 2
    assert printed.count(SIGNATURE) == 1


def test_a_test_shows_its_signatures_in_every_run(
    trained, make_dates, make_trainer, logger, capsys
):
    trainer = make_trainer(logger=logger, callbacks=[SampleLogger()], limit_test_batches=1)
    for _ in range(2):
        trainer.test(trained, make_dates(), verbose=False)
        assert capsys.readouterr().out.count(f"test/bleu: {SIGNATURE}") == 1
    assert f"test/bleu: {SIGNATURE}" in logged_text(logger, "test/signatures")[0]


# Throughput.


class Clock:
    """Stands in for the time module; only work and validation make it advance."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sys.modules["seq2seq.callbacks"], "time", clock)
    return clock


def train_batch(throughput, clock, logged, target, seconds, world_size=1):
    trainer = SimpleNamespace(world_size=world_size)
    task = SimpleNamespace(log=lambda name, value: logged.append((name, pytest.approx(value))))
    batch = Batch(None, torch.tensor(target), torch.arange(len(target))) if target else None
    throughput.on_train_batch_start(trainer, task, batch, 0)
    clock.now += seconds
    throughput.on_train_batch_end(trainer, task, None, batch, 0)


def figures(tokens_per_second, data_wait_share):
    return [
        ("train/tokens_per_second", tokens_per_second),
        ("train/data_wait_share", data_wait_share),
    ]


def test_throughput_is_real_target_tokens_by_seconds_of_training(clock):
    throughput, logged = Throughput(window_steps=2), []
    train_batch(throughput, clock, logged, [[5, 6, 3], [7, 3, 0]], seconds=2.0)
    assert logged == []
    train_batch(throughput, clock, logged, [[3, 0], [3, 0]], seconds=0.5)
    clock.now += 50  # between windows
    assert logged == figures(7 / 2.5, 0)
    for _ in range(2):
        train_batch(throughput, clock, logged, [[5, 3]], seconds=1.0, world_size=3)
    assert logged[2:] == figures(3 * 4 / 2, 0)


def test_the_time_from_step_to_step_is_the_share_of_waiting_for_data(clock):
    throughput, logged = Throughput(window_steps=3), []
    for _ in range(2):  # the second window as the first
        for wait in (0.25, 0.5, 0.0):
            train_batch(throughput, clock, logged, [[5, 6, 3]], seconds=1.0)
            clock.now += wait
    assert logged == 2 * figures(9 / 3.75, 0.75 / 3.75)


def test_series_have_no_tokens_but_wait_for_data_too(clock):
    throughput, logged = Throughput(window_steps=2), []
    for _ in range(2):
        train_batch(throughput, clock, logged, target=None, seconds=1.5)
        clock.now += 1.0
    assert logged == [("train/data_wait_share", 0.25)]


def test_validation_is_not_counted_and_short_epochs_share_a_window(clock):
    throughput, logged = Throughput(window_steps=2), []
    train_batch(throughput, clock, logged, [[5, 6, 3]], seconds=2.0)
    throughput.on_validation_start(None, None)
    clock.now += 1000
    throughput.on_validation_end(None, None)
    train_batch(throughput, clock, logged, [[5, 3]], seconds=3.0)
    assert logged == figures(5 / 5, 0)


def test_a_training_logs_a_plausible_throughput(make_translator, make_dates, make_trainer):
    trainer = make_trainer(callbacks=[Throughput(window_steps=3)], max_steps=3, limit_val_batches=0)
    trainer.fit(make_translator(optimization=Optimization()), make_dates())
    assert 10 < trainer.callback_metrics["train/tokens_per_second"] < 1e7
    assert 0 < trainer.callback_metrics["train/data_wait_share"] < 1


@pytest.mark.parametrize(
    ("world_size", "rank", "is_told"), [(1, 0, False), (2, 0, True), (2, 1, False)]
)
def test_several_processes_are_told_how_uneven_their_batches_are(world_size, rank, is_told):
    sampler = SimpleNamespace(imbalance=1.0625)
    trainer = SimpleNamespace(
        world_size=world_size,
        is_global_zero=rank == 0,
        train_dataloader=SimpleNamespace(batch_sampler=sampler),
    )
    printed = []
    Throughput().on_train_start(trainer, SimpleNamespace(print=printed.append))
    assert [("1.062 times the mean" in line) for line in printed] == [True] * is_told
