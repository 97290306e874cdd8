import os
import socket

import pytest
import torch
from conftest import trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch.multiprocessing.spawn import spawn
from toy_captions import captioner, module, of_split, write_corpus, write_weights

from seq2seq.encoders.image import ImageEncoder
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.predictor import load
from seq2seq.search import SearchOptions
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.self_critical import SelfCritical


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return str(write_weights(tmp_path_factory.mktemp("weights") / "backbone.pt"))


@pytest.fixture
def root(tmp_path):
    return write_corpus(tmp_path)


class Steps(Callback):
    """Notes all values before the first step and after each one."""

    def __init__(self):
        self.states = []

    def note(self, _trainer, task, *_):
        self.states.append({name: value.clone() for name, value in task.state_dict().items()})

    on_train_start = on_train_batch_end = note

    def moved(self):
        """Return the names of the backbone's values that each step has changed."""
        return [
            {
                name.removeprefix("encoder.backbone.")
                for name, value in after.items()
                if name.startswith("encoder.backbone.") and not torch.equal(value, before[name])
            }
            for before, after in zip(self.states, self.states[1:], strict=False)
        ]


# What learns.


def test_a_frozen_network_stays_as_it_was_loaded(root, weights, make_trainer):
    steps = Steps()
    task = captioner(backbone_weights=weights, optimization=decaying(0.1))
    make_trainer(max_steps=3, callbacks=[steps]).fit(task, module(root))
    assert steps.moved() == [set()] * 3
    loaded = torch.load(weights)
    for name, value in task.encoder.backbone.state_dict().items():
        assert torch.equal(value, loaded[name]), name


def decaying(learning_rate):
    return Optimization(optimizer="adamw", learning_rate=learning_rate, weight_decay=0.1)


TUNED = ("features.2.block.2.", "features.3.")


def test_layers_are_fine_tuned_from_a_step_on_at_their_own_rate(root, weights, make_trainer):
    steps = Steps()
    task = captioner(
        backbone_weights=weights,
        fine_tune_from="features.2.block.2",
        fine_tune_start=2,
        fine_tune_learning_rate=0.003,
        optimization=decaying(0.02),
    )
    fitting = make_trainer(max_steps=4, callbacks=[steps], limit_val_batches=0)
    fitting.fit(task, module(root))
    values = dict(task.encoder.backbone.named_parameters())
    tuned = {name for name in values if name.startswith(TUNED)}
    assert steps.moved() == [set(), set(), tuned, tuned]
    own = {values[name] for name in tuned}
    [optimizer] = fitting.optimizers
    for group in optimizer.param_groups:
        is_own = set(group["params"]) <= own
        assert is_own or not own & {*group["params"]}
        assert group["lr"] == (0.003 if is_own else 0.02)
    learned = {p for group in optimizer.param_groups for p in group["params"]}
    assert learned == {p for p in task.parameters() if p.requires_grad} > own
    # The first step of AdamW is the learning rate long, whatever the gradient.
    for name in (f"encoder.backbone.{name}" for name in tuned if name.endswith("weight")):
        step = (steps.states[3][name] - steps.states[2][name]).abs()
        assert 0.0025 < step.max() < 0.0035, name


def test_a_network_that_neither_is_trained_nor_learns_is_pointed_out(root, make_trainer, caplog):
    def fit(**options):
        caplog.clear()
        make_trainer(max_steps=1, limit_val_batches=0).fit(captioner(**options), module(root))
        return [record.getMessage() for record in caplog.records if record.name.startswith("seq2")]

    [message] = fit()
    assert "stays as chance made it" in message
    assert "--model.backbone_weights" in message
    assert fit(fine_tune_from="all") == []


def test_fine_tuned_layers_have_the_decoders_rate_unless_told(root, make_trainer):
    task = captioner(fine_tune_from="features.3", optimization=decaying(0.01))
    fitting = make_trainer(max_steps=1, limit_val_batches=0)
    fitting.fit(task, module(root))
    assert {group["lr"] for group in fitting.optimizers[0].param_groups} == {0.01}


# The cache of features.


@pytest.fixture
def seen(monkeypatch):
    """Return the numbers of pictures that any encoder has looked at, batch by batch."""
    sizes = []
    extract = ImageEncoder.extract

    def counted(self, pictures):
        sizes.append(len(pictures))
        return extract(self, pictures)

    monkeypatch.setattr(ImageEncoder, "extract", counted)
    return sizes


def test_training_on_a_cache_looks_at_each_picture_once(root, weights, make_trainer, seen):
    for expected in (6 + 3, 0):  # of training and of validation; then everything is there
        seen.clear()
        task = captioner(backbone_weights=weights)
        make_trainer(max_steps=6).fit(task, module(root, cache_features=True))
        assert sum(seen) == expected


def test_mirrored_pictures_are_cached_as_well(root, weights, make_trainer, seen):
    data = module(root, cache_features=True, flip=True)
    task = captioner(backbone_weights=weights)
    make_trainer(max_steps=6).fit(task, data)
    assert sum(seen) == 2 * 6 + 3
    batches = data.train_dataloader()
    features = set()
    for epoch in range(6):
        batches.set_epoch(epoch)
        for batch in batches:
            place = batch.indices.tolist().index(0) if 0 in batch.indices else None
            if place is not None:
                features.add(batch.inputs[place])
    assert len({tuple(item.flatten().tolist()) for item in features}) == 2


def test_cached_features_train_and_score_as_pictures_do(root, weights, make_trainer):
    results = []
    for cache in (False, True):
        torch.manual_seed(1)
        fitting = make_trainer(max_steps=4)
        fitting.fit(captioner(backbone_weights=weights), module(root, cache_features=cache))
        results.append({name: value.item() for name, value in fitting.callback_metrics.items()})
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(value, abs=5e-3), name


def test_a_test_uses_the_network_of_the_checkpoint(root, weights, make_trainer, tmp_path, seen):
    fitting = make_trainer(max_steps=2, limit_val_batches=0)
    fitting.fit(captioner(backbone_weights=weights), module(root))
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    [expected] = fitting.test(fitting.model, module(root), verbose=False)
    for _ in range(2):
        seen.clear()
        data = module(root, cache_features=True)
        task = captioner(backbone_weights=None)  # so other weights until the checkpoint is read
        [scores] = make_trainer().test(task, data, ckpt_path=tmp_path / "x.ckpt", verbose=False)
        for name, value in expected.items():
            assert scores[name] == pytest.approx(value, abs=5e-3), name
    assert seen == []
    assert len([*(root / ".seq2seq_cache").glob("features-*")]) == 1


def test_features_of_a_network_that_learns_cannot_be_cached(root, make_trainer):
    task = captioner(fine_tune_from="features.3")
    with pytest.raises(ConfigError, match=r"--data\.cache_features .*--model\.fine_tune_from"):
        make_trainer(max_steps=1).fit(task, module(root, cache_features=True))


def test_samples_of_cached_features_are_shown_with_their_picture(root, make_trainer):
    data, task, checking = module(root, cache_features=True), captioner(), make_trainer()
    checking.validate(task, data, verbose=False)
    [first, _] = data.val_dataloader()
    options = SearchOptions(return_attention=True)
    [[prediction], _] = task.predict_batch(first, options)
    figure = task.figure(first.example(0), prediction)
    shown = torch.tensor(figure.axes[0].images[0].get_array()).permute(2, 0, 1)
    torch.testing.assert_close(shown * 255, data.look_up("val", int(first.indices[0])).float())


# The checkpoint.


def test_a_checkpoint_whose_transform_differs_is_refused(root, make_trainer, tmp_path):
    fitting = make_trainer(max_steps=1, limit_val_batches=0)
    fitting.fit(captioner(), module(root))
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    other = captioner(init_from=str(tmp_path / "x.ckpt"), image_resize="pad", image_std=[0.2] * 3)
    message = r"another way: image_resize squash \(now pad\), image_std \[0\.229, .*\(now \[0\.2,"
    with pytest.raises(CheckpointError, match=message):
        make_trainer(max_steps=1).fit(other, module(root))


def test_predict_prepares_pictures_as_training_did(root, make_trainer, tmp_path):
    task, data = captioner(image_resize="pad", image_mean=[0.1, 0.2, 0.3]), module(root)
    fitting = make_trainer(max_steps=2, limit_val_batches=0)
    fitting.fit(task, data)
    fitting.save_checkpoint(tmp_path / "x.ckpt")
    loaded = load(tmp_path / "x.ckpt", "cpu").task
    for place, entry in enumerate(of_split("val")):
        picture = loaded.load_item(str(root / "images" / entry.name))
        assert torch.equal(picture, data.look_up("val", place))
        batch = loaded.collate([picture])
        torch.testing.assert_close(
            loaded.encoder(batch.inputs).values, task.eval().encoder(batch.inputs).values
        )
    options = SearchOptions(beam_size=2)
    [[best]] = loaded.predict_batch(batch, options)
    assert best.text == task.predict_batch(batch, options)[0][0].text


# Resumed, and on several processes.


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize(
    "options",
    [
        {"fine_tune_from": "features.3", "fine_tune_start": 4},
        {"self_critical": SelfCritical(samples=2)},
    ],
)
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(root, weights, make_trainer, options):
    def fit(steps, name, **resume):
        torch.manual_seed(1)
        data = module(root, flip=True, captions_per_picture=1)
        task = captioner(backbone_weights=weights, **options)
        saving = ModelCheckpoint(root / name, "{step}", every_n_train_steps=3, save_top_k=-1)
        fitting = make_trainer(
            max_steps=steps, callbacks=[saving], enable_checkpointing=True, limit_val_batches=0
        )
        fitting.fit(task, data, weights_only=True, **resume)
        return task.state_dict()

    whole = fit(7, "whole")
    # Two steps make an epoch, so the third one ends in the middle of one.
    assert fit(5, "killed").keys() == whole.keys()
    resumed = fit(7, "resumed", ckpt_path=root / "killed/step=3.ckpt")
    for name, value in whole.items():
        torch.testing.assert_close(resumed[name], value, msg=name)


def fit_in_parallel(rank, root, weights, port):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2", "NODE_RANK": "0"}
    torch.set_num_threads(1)
    for name, (model_options, data_options) in RUNS.items():
        fitting = trainer(root, max_steps=4, devices=2, strategy="ddp", max_epochs=-1)
        torch.manual_seed(1)
        task = captioner(backbone_weights=weights, **model_options)
        # Of three pictures of validation, both ranks have the last one.
        fitting.fit(task, module(root, batch_size=3, eval_batch_size=1, **data_options))
        scores = {
            name: value.item()
            for name, value in fitting.callback_metrics.items()
            if name.startswith("val/")
        }
        state = {name: value.clone() for name, value in task.state_dict().items()}
        torch.save((scores, state), root / f"{name}_{rank}.pt")
        fitting.save_checkpoint(root / f"{name}.ckpt")


RUNS = {
    "tuned": ({"fine_tune_from": "features.3", "fine_tune_start": 2}, {}),
    "cached": ({"self_critical": SelfCritical(samples=3)}, {"cache_features": True}),
}


@pytest.mark.slow
def test_two_processes_train_one_model_and_score_as_one(root, weights, make_trainer):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    spawn(fit_in_parallel, args=(root, weights, port), nprocs=2)
    for name, (options, data_options) in RUNS.items():
        [scores, state], [others, other] = (
            torch.load(root / f"{name}_{rank}.pt") for rank in range(2)
        )
        assert scores == others
        for key, value in state.items():
            assert torch.equal(value, other[key]), key
        [alone] = make_trainer().validate(
            captioner(**options),
            module(root, **data_options),
            ckpt_path=root / f"{name}.ckpt",
            verbose=False,
        )
        assert scores == pytest.approx(alone, abs=1e-5)
    loaded = torch.load(weights)
    _, tuned = torch.load(root / "tuned_0.pt")
    moved = {
        name
        for name, value in loaded.items()
        if not torch.equal(tuned.get(f"encoder.backbone.{name}", value), value)
    }
    assert {name.split(".")[1] for name in moved} == {"3"}
