"""Two processes learn what one learns that has both of their batches."""

import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import toy_captions
import toy_classifier
import toy_clips
import toy_reviews
import toy_translation
from conftest import trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.multiprocessing.spawn import spawn

from datamodules.waves import SineDataModule
from seq2seq.tasks.forecasting import Forecaster
from seq2seq.tasks.options import Optimization, TeacherForcing
from seq2seq.tasks.text_classification import TextClassifier
from seq2seq.tasks.translation import Translator

# Of losses and weights, in float64; the loss of labels is computed in float32.
TOLERANCE = 1e-5
EPOCHS = 2
# Each step is as long as the gradient: of an optimiser that divides by its size, rounding where it
# is zero would make steps of their own.
SGD = Optimization(optimizer="sgd", learning_rate=0.2)


class Run(NamedTuple):
    """What to train.

    Attributes:
        rows: Examples in a batch of one of the two processes.
        build: Makes task and data, of a folder and the examples in a batch of training; there are
            half as many in one of validation.
    """

    rows: int
    build: Callable


def translator(root, rows):
    options = {"batch_size": rows, "batch_tokens": 10**6, "eval_batch_size": rows // 2}
    task = Translator(40, embedding_size=6, hidden_size=7, dropout=0.0, optimization=SGD)
    return task, toy_translation.module(root / "text", **options)


def captioner(root, rows, **options):
    task = toy_captions.captioner(
        backbone_weights=str(root / "backbone.pt"),
        fine_tune_from="features.2",
        fine_tune_start=1,
        optimization=SGD,
        **options,
    )
    return task, toy_captions.module(root / "captions", batch_size=rows, eval_batch_size=rows // 2)


def following(root, rows):
    return captioner(root, rows, fine_tune_statistics=True)


def video_classifier(root, rows):
    task = toy_classifier.classifier(class_weights="balanced", optimization=SGD)
    data = toy_clips.module(root / "clips/videos.csv", batch_size=rows, eval_batch_size=rows // 2)
    return task, data


def text_classifier(root, rows):
    sizes = {"embedding_size": 5, "hidden_size": 6, "decoder_size": 7, "dropout": 0.0}
    task = TextClassifier(14, 2, optimization=SGD, **sizes)
    options = {"batch_size": rows, "eval_batch_size": rows // 2}
    return task, toy_reviews.module(root / "reviews", **options)


def forecaster(root, rows):  # noqa: ARG001  # waves are generated
    task = Forecaster(
        1, hidden_size=5, optimization=SGD, teacher_forcing=TeacherForcing(method="step")
    )
    sizes = {"train_waves": 5, "val_waves": 1, "test_waves": 3, "length": 23, "horizon": 9}
    options = {"period": 3, "batch_size": rows, "eval_batch_size": rows // 2, "tbptt_steps": 8}
    return task, SineDataModule(**sizes, **options)


# In the last batch of an epoch there are 3 + 2 sentences, 1 + 1 pictures, 2 + 1 videos, one text
# and one wave; of 11, 3, 3 and 7 examples and one wave to validate on, all but these come evenly.
RUNS = {
    "Translator": Run(4, translator),
    "Captioner": Run(2, captioner),
    "VideoClassifier": Run(2, video_classifier),
    "TextClassifier": Run(4, text_classifier),
    "Forecaster": Run(2, forecaster),
}


@dataclass
class Recorder(Callback):
    """Notes what happens at every step."""

    initial: dict = field(default_factory=dict)
    losses: list = field(default_factory=list)
    rows: list = field(default_factory=list)
    draws: list = field(default_factory=list)
    scores: dict = field(default_factory=dict)
    final: dict = field(default_factory=dict)

    def on_train_start(self, trainer, task):  # noqa: ARG002
        self.initial = {name: value.clone() for name, value in task.state_dict().items()}

    def on_train_batch_end(self, trainer, task, outputs, batch, batch_idx):  # noqa: ARG002
        self.losses.append(trainer.callback_metrics["train/loss"].item())
        self.rows.append(batch.indices.tolist())
        self.draws.append(torch.rand(3).tolist())  # the first ones since the step began

    def on_fit_end(self, trainer, task):
        metrics = trainer.callback_metrics.items()
        self.scores = {name: value.item() for name, value in metrics if name.startswith("val/")}
        self.final = {name: value.clone() for name, value in task.state_dict().items()}


def fit(root, run, rows, **options):
    recorder = Recorder()
    task, data = run.build(root, rows)
    trainer(root, precision="64-true", max_epochs=EPOCHS, callbacks=[recorder], **options).fit(
        task, data
    )
    return asdict(recorder)


def fit_in_parallel(rank, root, port):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    torch.set_num_threads(1)
    for name, run in {**RUNS, "following": Run(2, following)}.items():
        torch.manual_seed(1 + rank)  # initial weights must not differ for all that
        # A process that waits in vain is a failure, not a test that never ends.
        strategy = DDPStrategy(timeout=timedelta(minutes=4))
        found = fit(root, run, run.rows, devices=2, strategy=strategy)
        torch.save(found, root / f"{name}_{rank}.pt")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return the folder of all corpora."""
    root: Path = tmp_path_factory.mktemp("corpora")
    (root / "text").mkdir()
    for split, count, seed in (("train", 29, 1), ("val", 11, 2), ("test", 7, 3)):
        toy_translation.write(root / "text", split, toy_translation.sentences(count, seed))
    toy_captions.write_weights(root / "backbone.pt")
    (root / "captions").mkdir()
    toy_captions.write_corpus(root / "captions")
    toy_clips.write_corpus(root / "clips")
    toy_reviews.write_splits(root / "reviews", train=25)
    toy_reviews.write_table(root / "reviews/val.csv", toy_reviews.reviews(7, 3))
    for run in RUNS.values():  # once, and not by both
        run.build(root, run.rows)[1].prepare_data()
    return root


@pytest.fixture(scope="module")
def pairs(root):
    """Return what both processes have noted, by the name of the run."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(fit_in_parallel, args=(root, port), nprocs=2)
    names = [*RUNS, "following"]
    return {name: [torch.load(root / f"{name}_{rank}.pt") for rank in (0, 1)] for name in names}


@pytest.fixture(scope="module", params=RUNS)
def outcomes(request, root, pairs):
    """Return what one process has noted, and what each of the two has."""
    run = RUNS[request.param]
    torch.manual_seed(1)
    return fit(root, run, 2 * run.rows), *pairs[request.param]


@pytest.mark.slow
def test_a_step_of_two_processes_sees_the_examples_of_one(outcomes):
    for whole, *shares in zip(*(outcome["rows"] for outcome in outcomes), strict=True):
        assert {*shares[0], *shares[1]} == {*whole}
        if len(whole) > 1:
            assert sum(map(len, shares)) == len(whole)


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(outcomes):
    alone, *pair = outcomes
    final = alone["final"]
    moved = {name: (final[name] - start).abs().max() for name, start in alone["initial"].items()}
    assert max(moved.values()) > 0.02
    for each in pair:
        assert each["losses"] == pytest.approx(alone["losses"], rel=TOLERANCE)
        for name, value in final.items():
            difference = (each["final"][name] - value).abs().max()
            assert difference <= TOLERANCE * max(moved[name], 1e-3), name
            assert torch.equal(each["final"][name], pair[0]["final"][name]), name


@pytest.mark.slow
def test_two_processes_have_the_metrics_of_one(outcomes):
    alone, *pair = outcomes
    for each in pair:
        assert each["scores"] == pytest.approx(alone["scores"], rel=1e-4)
        assert each["scores"] == pair[0]["scores"]


@pytest.mark.slow
def test_random_choices_differ_by_process_and_initial_weights_do_not(outcomes):
    alone, first, second = outcomes
    assert first["draws"] == alone["draws"]
    draws = [*map(tuple, first["draws"] + second["draws"])]
    assert len({*draws}) == len(draws)
    for name, value in alone["initial"].items():
        for each in (first, second):
            assert torch.equal(each["initial"][name], value), name


@pytest.mark.slow
def test_statistics_that_follow_the_batches_are_those_of_the_first_process(root, pairs):
    first, second = pairs["following"]
    assert first["losses"] == second["losses"]
    assert first["scores"] == second["scores"]
    task, data = following(root, 2)
    for name, _ in task.named_parameters():
        assert torch.equal(first["final"][name], second["final"][name]), name
    task.double().load_state_dict(first["final"])
    [scores] = trainer(root, precision="64-true").validate(task, data, verbose=False)
    assert first["scores"] == pytest.approx(scores, rel=1e-4)
