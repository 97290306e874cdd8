import csv
import os
import socket
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.multiprocessing.spawn import spawn
from toy_classifier import assert_equal_weights, classifier, fit, with_backbone
from toy_clips import CLASSES, RATE_HZ, ROWS, SIZE, module, of_split, write_corpus

import seq2seq
from datamodules.clip_augmentation import ClipAugmentation
from seq2seq.errors import CheckpointError
from seq2seq.tasks.options import Optimization, TeacherForcing

TESTED = of_split("test")


@pytest.fixture
def source(tmp_path):
    return write_corpus(tmp_path / "corpus")


# A whole run.


def test_a_run_trains_validates_tests_and_its_checkpoint_predicts_the_same(source, make_trainer):
    task, data = classifier(), module(source)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    fitting = fit(make_trainer, task, data, limit_val_batches=1.0)
    assert 0 <= fitting.callback_metrics["val/accuracy"] <= 1
    assert not all(torch.equal(value, before[n]) for n, value in task.state_dict().items())
    [scores] = fitting.test(task, data, verbose=False)
    named = ("loss", "accuracy", "top_5", "macro_f1", "mean_class_accuracy", "calibration_error")
    assert {f"test/{name}" for name in named} <= scores.keys()
    assert task.confusion.sum() == len(TESTED)
    fitting.save_checkpoint(source.parent / "x.ckpt")
    loaded = seq2seq.load(source.parent / "x.ckpt", "cpu")
    loaded.task.take_clips(task.sampling.clips)
    data.predict = str(source.parent)
    task.eval()
    found = []
    for batch in data.predict_dataloader():
        found += [best for [best] in task.predict_batch(batch, loaded.task.decoding)]
    paths = sorted(map(str, source.parent.glob("*.npy")))
    assert len(paths) == len(ROWS)
    for one, [other] in zip(found, loaded.predict_chunk(paths, loaded.task.decoding), strict=True):
        assert one.text == other.text
        torch.testing.assert_close(one.probabilities, other.probabilities)


def test_what_a_checkpoint_knows_and_what_the_user_chooses_anew(source, make_trainer):
    options = {"mixup": 0.3, "class_weights": "balanced", "checkpoint_steps": 2, "tbptt_steps": 3}
    task = classifier(**options, strides=[2])
    fitting = fit(make_trainer, task, module(source), steps=1)
    fitting.save_checkpoint(source.parent / "x.ckpt")
    loaded = seq2seq.load(source.parent / "x.ckpt", "cpu").task
    assert loaded.hparams["strides"] == [2]
    assert loaded.hparams["image_mean"] == [0.5]
    assert loaded.sampling == replace(task.sampling, clips=1)
    assert loaded.preparation == task.preparation
    assert loaded.stills_rate_hz == RATE_HZ  # of the data
    assert loaded.class_names == CLASSES
    for name in (*options, "clips", "optimization", "init_from"):
        assert name not in loaded.hparams
    assert not loaded.mixup
    for each, steps in [(task, (2, 3)), (loaded, (None, None))]:
        recurrence = each.encoder.recurrence
        assert (recurrence.checkpoint_steps, recurrence.tbptt_steps) == steps


@pytest.mark.parametrize("label_steps", [1, 2])
def test_a_few_clips_are_learned(tmp_path, make_trainer, label_steps):
    source = write_pairs(tmp_path, label_steps)
    task = classifier(
        num_classes=2 * label_steps, label_steps=label_steps, sampling="uniform", clips=1
    )
    task.optimization = Optimization(learning_rate=0.03)
    data = module(source, num_classes=2 * label_steps, label_steps=label_steps, batch_size=4)
    fitting = fit(make_trainer, task, data, steps=40)
    [scores] = make_trainer().validate(task, data, verbose=False)
    assert scores["val/accuracy"] == 1
    assert scores["val/step_accuracy"] == 1
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    texts = seq2seq.load(tmp_path / "x.ckpt", "cpu").predict(
        [tmp_path / f"{number}.npy" for number in range(4)], beam_size=2
    )
    labels = ["left;dark", "left;light", "right;dark", "right;light"]
    assert texts == [";".join(label.split(";")[:label_steps]) for label in labels]


def write_pairs(folder, label_steps):
    """Write clips of a half that is lighter, on one of two sides, by one of two amounts."""
    rows = [("path", "label", "split")]
    for number, label in enumerate(["left;dark", "left;light", "right;dark", "right;light"]):
        side, light = divmod(number, 2)
        frames = np.zeros((5, SIZE, SIZE), dtype=np.uint8)
        # A corner tells the sides apart for a network that sees means and maxima.
        frames[:, :, :2] = 90 + 160 * side
        frames[:, 4:] += np.uint8(5 + 60 * light)
        np.save(folder / f"{number}.npy", np.clip(frames, 0, 255))
        name = ";".join(label.split(";")[:label_steps])
        rows += [(f"{number}.npy", name, "train")]
        # The same clip under another name, to be validated with.
        np.save(folder / f"val{number}.npy", frames)
        rows += [(f"val{number}.npy", name, "val")]
    with (folder / "clips.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "clips.csv"


def test_predicting_with_the_trainer_gives_every_video_its_labels(source, make_trainer):
    data = module(source, predict=str(source.parent), eval_batch_size=5)
    task = classifier()
    fit(make_trainer, task, data, steps=1)
    batches = make_trainer().predict(task, data)
    found = [best.text for batch in batches for best, *_ in batch]
    assert len(found) == len(ROWS)
    assert set(found) <= set(CLASSES)


# What training does.


def test_balanced_classes_weigh_by_how_often_they_occur(source, make_trainer):
    task = classifier(class_weights="balanced")
    fit(make_trainer, task, module(source), steps=1)
    counts = torch.tensor([2.0, 3.0, 2.0])  # of the classes in order, in the training split
    assert [
        sum(row[1] == name and row[2] == "train" for row in ROWS) for name in CLASSES
    ] == counts.tolist()
    torch.testing.assert_close(task._weights, 7 / (3 * counts))
    torch.testing.assert_close((task._weights * counts).sum(), torch.tensor(7.0))


def test_the_labels_of_all_steps_are_counted(tmp_path, make_trainer):
    data = module(write_pairs(tmp_path, 2), num_classes=4, label_steps=2)
    task = classifier(num_classes=4, label_steps=2, class_weights="balanced")
    fit(make_trainer, task, data, steps=1)
    assert task.class_names == ("dark", "left", "light", "right")
    assert task._weights.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize("options", [{}, {"recurrence": "vector"}, {"recurrence": "none"}])
def test_half_precision_trains_and_scores(source, make_trainer, options):
    task = classifier(mixup=0.4, label_smoothing=0.1, class_weights="balanced", **options)
    fitting = fit(make_trainer, task, module(source), limit_val_batches=1.0, precision="bf16-mixed")
    assert fitting.callback_metrics["val/loss"].isfinite()
    assert all(value.isfinite().all() for value in task.state_dict().values())


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("label_steps", [1, 2])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path, make_trainer, label_steps):
    source = write_pairs(tmp_path, label_steps)
    classes = {"num_classes": 2 * label_steps, "label_steps": label_steps}

    def run(steps, name, **resume):
        torch.manual_seed(1)
        data = module(source, **classes, augmentation=ClipAugmentation(True, 0.5, 1.3, 9, 0.3))
        task = classifier(
            **classes,
            mixup=0.6,
            class_weights="balanced",
            teacher_forcing=TeacherForcing(schedule="exponential", decay_steps=3.0),
        )
        saving = ModelCheckpoint(tmp_path / name, "{step}", every_n_train_steps=3, save_top_k=-1)
        fitting = make_trainer(
            max_steps=steps, callbacks=[saving], enable_checkpointing=True, limit_val_batches=0
        )
        fitting.fit(task, data, weights_only=True, **resume)
        return task

    whole = run(7, "whole")
    run(5, "killed")
    # Two steps make an epoch, so the third one ends in the middle of one.
    resumed = run(7, "resumed", ckpt_path=tmp_path / "killed/step=3.ckpt")
    assert_equal_weights(whole, resumed, rtol=0, atol=0)


def test_a_checkpoint_of_other_frames_is_refused_by_the_names_of_the_options(source, make_trainer):
    fitting = fit(make_trainer, classifier(), module(source), steps=1)
    fitting.save_checkpoint(source.parent / "x.ckpt")
    task = classifier(image_size=16, image_resize="crop")
    refusal = (
        r"prepared in another way: image_size 8 \(now 16\), image_resize squash \(now crop\)\. "
        r"Set these --model options"
    )
    with pytest.raises(CheckpointError, match=refusal):
        make_trainer().validate(task, module(source), ckpt_path=source.parent / "x.ckpt")


# Frames that are kept.


@pytest.mark.parametrize("sampling", ["uniform", "segment", "dense"])
def test_kept_frames_train_and_score_as_files_do(source, make_trainer, sampling):
    tasks, scores = [], []
    for cache_frames in (False, True, True):
        data = module(source, cache_frames=cache_frames, augmentation=ClipAugmentation(flip=True))
        torch.manual_seed(1)
        task = classifier(sampling=sampling, frame_rate_hz=7.0, mixup=0.5)
        fitting = fit(make_trainer, task, data, limit_val_batches=1.0)
        tasks.append(task)
        scores.append({name: value.item() for name, value in fitting.callback_metrics.items()})
    for task, score in zip(tasks[1:], scores[1:], strict=True):
        assert_equal_weights(tasks[0], task, rtol=0, atol=0)
        assert score == scores[0]


# On several processes.


def fit_in_parallel(rank, root, port):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    torch.set_num_threads(1)
    for name, (build, options, data_options) in RUNS.items():
        fitting = trainer(root, max_steps=4, devices=2, strategy="ddp", max_epochs=-1)
        torch.manual_seed(1)
        task, data = build(**options), module(root / "corpus" / "videos.csv", **data_options)
        fitting.fit(task, data)
        scores = {
            key: value.item()
            for key, value in fitting.callback_metrics.items()
            if key.startswith("val/")
        }
        state = {key: value.clone() for key, value in task.state_dict().items()}
        torch.save((scores, state, task.confusion), root / f"{name}_{rank}.pt")
        fitting.save_checkpoint(root / f"{name}.ckpt")


# Three batches to validate with, of ``cells``, leave one rank a repetition.
RUNS = {
    "plain": (classifier, {"class_weights": "balanced", "mixup": 0.4}, {"cache_frames": True}),
    "cells": (
        classifier,
        {
            "attention": "bilinear",
            "memory_positions": "cells",
            "checkpoint_steps": 1,
            "tbptt_steps": 2,
        },
        {"eval_batch_size": 1},
    ),
    "cached": (with_backbone, {"recurrence": "vector"}, {"cache_features": True}),
    "tuned": (with_backbone, {"fine_tune_from": "features.3", "fine_tune_start": 2}, {}),
}


@pytest.mark.slow
def test_two_processes_train_one_model_and_score_as_one(tmp_path, source, make_trainer):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(fit_in_parallel, args=(tmp_path, port), nprocs=2)
    for name, (build, options, data_options) in RUNS.items():
        [scores, state, confusion], [others, other, other_confusion] = (
            torch.load(tmp_path / f"{name}_{rank}.pt") for rank in range(2)
        )
        assert scores == others
        assert torch.equal(confusion, other_confusion)
        for key, value in state.items():
            assert torch.equal(value, other[key]), key
        task = build(**options)
        [alone] = make_trainer().validate(
            task,
            module(source, **data_options),
            ckpt_path=tmp_path / f"{name}.ckpt",
            verbose=False,
        )
        if data_options.get("eval_batch_size") == 1:
            del scores["val/loss"], alone["val/loss"]  # the mean of batches, repetitions included
        assert scores == pytest.approx(alone, abs=1e-5)
        assert torch.equal(task.confusion, confusion)
        assert confusion.sum() == len(of_split("val"))
