from dataclasses import replace

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from toy_series import STEPS, batch_of, by_hand, series, waves
from toy_series import scaled_forecaster as forecaster

import seq2seq
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.tasks.forecasting import NOT_SAVED
from seq2seq.tasks.options import Optimization, TeacherForcing

HORIZON = 7
LBFGS = Optimization(optimizer="lbfgs", learning_rate=1.0, max_iterations=4)
SAMPLING = TeacherForcing(ratio=0.6, method="step")


def trained(make_trainer, data, steps=3, ckpt_path=None, **options):
    trainer_options = {"max_epochs": -1, "limit_val_batches": 0}
    for name in ("precision", "callbacks", "enable_checkpointing", "gradient_clip_val"):
        if name in options:
            trainer_options[name] = options.pop(name)
    task = forecaster(1, **options)
    trainer = make_trainer(max_steps=steps, **trainer_options)
    trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
    return task, trainer


def weights(task):
    return torch.cat([part.detach().flatten() for part in task.parameters()])


def test_a_wave_is_learned_and_goes_on(make_trainer):
    data = waves(train_waves=20, length=50, horizon=40)
    options = {"hidden_size": 12, "precision": "64-true"}
    optimization = replace(LBFGS, max_iterations=20)
    task, trainer = trained(make_trainer, data, 2, optimization=optimization, **options)
    [scores] = trainer.test(task, data, verbose=False)
    assert scores["test/one_step_mse"] < 1e-3
    assert scores["test/worst_free_running_mse"] < 0.05


@pytest.mark.parametrize("precision", ["64-true", "32-true"])
def test_any_precision_trains_and_a_checkpoint_goes_on_in_it(make_trainer, tmp_path, precision):
    task, trainer = trained(make_trainer, waves(), optimization=LBFGS, precision=precision)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = seq2seq.load_forecaster(tmp_path / "a.ckpt", "cpu")
    values = series(channels=1)
    expected = task.cpu().eval().forecast(values, horizon=HORIZON)
    assert next(loaded.parameters()).dtype == next(task.parameters()).dtype
    assert expected.values.dtype == torch.float64
    assert torch.equal(loaded.forecast(values, horizon=HORIZON).values, expected.values)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
@pytest.mark.parametrize("action", ["fit", "validate", "test"])
def test_series_are_not_rounded_to_half_precision(make_trainer, action, precision):
    task, data = forecaster(1), waves(standardize=True)
    expected = rf"precision is {precision}, .* scaling .* --trainer\.precision bf16-mixed"
    with pytest.raises(ConfigError, match=expected):
        getattr(make_trainer(precision=precision, max_steps=1), action)(task, data)
    make_trainer(precision="bf16-mixed", max_steps=1).fit(task, data)
    assert task.series_mean.dtype == torch.float64
    assert torch.equal(task.series_mean, data.scaling.mean)


def test_a_checkpoint_is_complete_and_plain(make_trainer, tmp_path):
    _, trainer = trained(make_trainer, waves(standardize=True))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    saved = torch.load(tmp_path / "a.ckpt", weights_only=True)
    for name, value in saved["hyper_parameters"].items():
        assert isinstance(value, int | float | str | None), name
    assert not saved["hyper_parameters"].keys() & {*NOT_SAVED}
    assert saved["seq2seq"]["task"] == "Forecaster"
    assert 0.6 < saved["state_dict"]["series_std"] < 0.8


def test_another_kind_of_checkpoint_is_no_forecaster(checkpoint, make_trainer, tmp_path):
    with pytest.raises(ConfigError, match=r"Translator, .*not forecast\. Use seq2seq.load"):
        seq2seq.load_forecaster(checkpoint)
    _, trainer = trained(make_trainer, waves(), steps=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=r"Forecaster, .* Use seq2seq\.load_forecaster"):
        seq2seq.load(tmp_path / "a.ckpt")


def test_other_channels_than_the_checkpoints_are_refused():
    task, other = forecaster(), forecaster()
    task.channel_names, other.channel_names = ("a", "b"), ("a", "c")
    saved = {"state_dict": task.state_dict()}
    task.on_save_checkpoint(saved)
    with pytest.raises(CheckpointError, match=r"channels a, b, and the data have a, c\."):
        other.on_load_checkpoint(saved)


def test_another_number_of_channels_than_the_datas_is_refused(make_trainer):
    with pytest.raises(ConfigError, match=r"data have 1 channels, the model 2.*num_channels"):
        make_trainer(max_steps=1).fit(forecaster(2), waves())


# Truncated back-propagation through time.

RESUMES = pytest.mark.filterwarnings("ignore:The dirpath has changed")
CHUNKS = {"length": 24, "tbptt_steps": 6, "batch_size": 5}


class SavedBytes(Callback):
    """Notes how much each batch keeps for its gradient."""

    def __init__(self):
        self.sizes = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        del trainer, pl_module, batch, batch_idx
        self.sizes.append(0)

    def keep(self, tensor):
        self.sizes[-1] += tensor.numel() * tensor.element_size()
        return tensor


def saved_bytes(make_trainer, chunks, **data):
    noted = SavedBytes()
    with torch.autograd.graph.saved_tensors_hooks(noted.keep, lambda tensor: tensor):
        trained(make_trainer, waves(**data), chunks, callbacks=[noted])
    assert len(noted.sizes) == chunks
    return noted.sizes


def test_chunks_with_their_state_give_the_losses_of_the_whole(monkeypatch):
    task, values = by_hand(forecaster(1), monkeypatch), series(channels=1)
    whole = task.training_step(batch_of(values), 0) * (STEPS - 1)
    total = 0.0
    for number, chunk in enumerate(values.split(4, dim=1)):
        batch = batch_of(chunk, is_continued=number > 0)
        task.on_train_batch_start(batch, number)
        # An optimiser may evaluate a batch more than once.
        first, second = (task.training_step(batch, number) for _ in range(2))
        assert torch.equal(first, second)
        total += first * (3 if number == 0 else 4)
    torch.testing.assert_close(total, whole)


def test_the_gradient_is_cut_where_a_chunk_begins(monkeypatch):
    task, values = by_hand(forecaster(1, difference=1), monkeypatch), series(channels=1)
    scaled, known = task._standardize(values), torch.ones_like(values).bool()
    state = task.decoder.begin(scaled[:, :2], known[:, :2])
    state = task.decoder(scaled[:, 2:6], known[:, 2:6], state).state
    state = type(state).unpack([part.detach() for part in state.pack()])
    expected = (task.decoder(scaled[:, 6:], known[:, 6:], state).values - scaled[:, 6:]).square()
    expected.mean().backward()
    gradients = [part.grad.clone() for part in task.parameters()]
    task.zero_grad()
    for number, chunk in enumerate(values.split(6, dim=1)):
        batch = batch_of(chunk, is_continued=number > 0)
        task.on_train_batch_start(batch, number)
        loss = task.training_step(batch, number)
    loss.backward()
    for part, gradient in zip(task.parameters(), gradients, strict=True):
        torch.testing.assert_close(part.grad, gradient)


def test_memory_does_not_grow_with_the_length_of_the_series(make_trainer):
    short = saved_bytes(make_trainer, 2, **{**CHUNKS, "length": 12})
    long = saved_bytes(make_trainer, 10, **{**CHUNKS, "length": 60})
    assert set(long[1:]) == {short[1]}
    [whole] = saved_bytes(make_trainer, 1, length=60)
    assert whole > 4 * short[1]


@RESUMES
@pytest.mark.parametrize("step", [2, 4, 5])
def test_a_run_resumed_in_the_middle_of_a_series_ends_with_the_same_weights(
    make_trainer, tmp_path, step
):
    options = {"cell": "gru", "difference": 1, "dropout": 0.3, "teacher_forcing": SAMPLING}
    assert_resumes(make_trainer, tmp_path, CHUNKS, step, 7, options)


@RESUMES
def test_a_run_with_lbfgs_resumed_ends_with_the_same_weights(make_trainer, tmp_path):
    options = {"optimization": LBFGS, "precision": "64-true"}
    assert_resumes(make_trainer, tmp_path, {}, 2, 4, options)


def assert_resumes(make_trainer, folder, data, step, steps, options):
    def run(name, ckpt_path=None):
        saving = ModelCheckpoint(folder / name, "{step}", every_n_train_steps=1, save_top_k=-1)
        saved = {"callbacks": [saving], "enable_checkpointing": True, "ckpt_path": ckpt_path}
        return trained(make_trainer, waves(**data), steps, **saved, **options)

    whole, _ = run("whole")
    resumed, trainer = run("resumed", folder / "whole" / f"step={step}.ckpt")
    assert trainer.global_step == steps
    assert torch.equal(weights(resumed), weights(whole))


def test_states_of_other_processes_are_not_gone_on_with(monkeypatch):
    task = by_hand(forecaster(1), monkeypatch)
    saved = {"state_dict": task.state_dict()}
    task.training_step(batch_of(series(channels=1)), 0)
    task.on_save_checkpoint(saved)
    saved["seq2seq"]["series"]["states"] *= 2
    task.on_load_checkpoint(saved)
    batch = batch_of(series(channels=1), is_continued=True)
    task.on_train_batch_start(batch, 1)
    with pytest.raises(CheckpointError, match=r"another number of processes.*--trainer\.devices"):
        task.training_step(batch, 1)


# What L-BFGS cannot do.


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (CHUNKS, {}, r"all of the training data in one batch, and there are 4.*batch_size"),
        ({}, {"gradient_clip_val": 1.0}, r"Leave out --trainer\.gradient_clip_val"),
        ({}, {"precision": "bf16-mixed"}, r"--trainer\.precision bf16-mixed rounds too much"),
    ],
)
def test_what_lbfgs_cannot_do_is_refused(make_trainer, data, options, message):
    with pytest.raises(ConfigError, match=message):
        trained(make_trainer, waves(**data), optimization=LBFGS, **options)


def test_dropout_is_not_for_lbfgs():
    with pytest.raises(ConfigError, match=r"dropout=0\.1 draws another mask.*--model\.dropout 0"):
        forecaster(dropout=0.1, optimization=LBFGS)
