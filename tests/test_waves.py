import math

import numpy as np
import pytest
import torch

from datamodules.check import read_all
from datamodules.waves import SineDataModule, generate_waves
from seq2seq.errors import ConfigError, DataError

LENGTH, HORIZON = 90, 40


def module(**options):
    counts = {"train_waves": 11, "val_waves": 2, "test_waves": 3}
    sizes = {"length": LENGTH, "horizon": HORIZON, "period": 5}
    return SineDataModule(**counts | sizes | options)


def ready(**options):
    data = module(**options)
    data.prepare_data()
    data.setup("fit")
    return data


def only(loader):
    [batch] = loader
    return batch


def waves(count=400, length=60, period=5, seed=1, **noise):
    return generate_waves(count, length, period, np.random.default_rng(seed), **noise)


def test_waves_are_sines_of_whole_shifts_within_four_periods():
    found = waves()
    table = {round(math.sin(step / 5), 9): step for step in range(-20, 20)}
    shifts = [table[round(wave[0], 9)] for wave in found]
    assert set(shifts) == set(range(-20, 20))
    for wave, shift in zip(found, shifts, strict=True):
        np.testing.assert_allclose(wave, np.sin((np.arange(60) + shift) / 5), atol=1e-12)


@pytest.mark.parametrize(("phase_noise", "noise"), [(0.1, 0.0), (0.0, 0.2)])
def test_noise_is_as_strong_as_asked_for(phase_noise, noise):
    found = waves(phase_noise=phase_noise, noise=noise)
    difference = found - waves()
    expected = noise or phase_noise * math.sqrt(0.5)  # the slope of a sine, squared, is 1/2 on mean
    assert difference.std() == pytest.approx(expected, rel=0.05)


def test_training_has_all_waves_in_a_batch():
    batch = only(ready().train_dataloader())
    assert batch.values.shape == (11, LENGTH, 1)
    assert batch.values.dtype == torch.float64
    assert batch.is_known.all()
    assert batch.warm_up == LENGTH
    assert not batch.is_continued
    assert sorted(batch.indices.tolist()) == list(range(11))


def test_evaluation_knows_how_waves_go_on():
    data = ready()
    for loader, count in ((data.val_dataloader(), 2), (data.test_dataloader(), 3)):
        batch = only(loader)
        assert batch.values.shape == (count, LENGTH + HORIZON, 1)
        assert batch.is_known.all()
        assert batch.warm_up == LENGTH
        assert batch.indices.tolist() == list(range(count))
        # A sine is a sum of what it was one step and two steps ago.
        ahead = 2 * math.cos(1 / 5) * batch.values[:, 1:-1] - batch.values[:, :-2]
        torch.testing.assert_close(batch.values[:, 2:], ahead)


def test_the_default_is_the_well_known_set():
    data = SineDataModule()
    data.setup("fit")
    assert only(data.train_dataloader()).values.shape == (97, 1000, 1)
    assert only(data.test_dataloader()).values.shape == (3, 2000, 1)
    assert (data.scaling.mean.tolist(), data.scaling.std.tolist()) == ([0], [1])


def test_the_seed_decides_the_waves_and_no_split_is_like_another():
    first, second, other = (ready(seed=seed) for seed in (3, 3, 4))
    names = ("train", "val", "test")
    of = [
        [only(getattr(data, f"{name}_dataloader")()) for name in names]
        for data in (first, second, other)
    ]
    assert all(torch.equal(a.values, b.values) for a, b in zip(of[0], of[1], strict=True))
    assert not any(torch.equal(a.values, b.values) for a, b in zip(of[0], of[2], strict=True))
    assert not torch.equal(of[0][1].values, of[0][2].values[:2])
    longer = only(ready(seed=3, val_waves=7).test_dataloader())
    assert torch.equal(longer.values, of[0][2].values)


def test_waves_can_be_standardised_cut_into_chunks_and_batched():
    data = ready(standardize=True, noise=0.5, tbptt_steps=40, batch_size=6)
    batches = list(data.train_dataloader())
    assert [batch.values.shape for batch in batches[:3]] == [(6, 40, 1), (6, 40, 1), (6, 10, 1)]
    assert [batch.is_continued for batch in batches] == [False, True, True] * 2
    values = torch.cat([batch.values.flatten() for batch in batches])
    torch.testing.assert_close(data.scaling.mean, values.mean()[None])
    torch.testing.assert_close(data.scaling.std, values.std(correction=0)[None])


def test_options_that_cannot_work_are_named_together():
    options = {
        "train_waves": 0,
        "val_waves": -1,
        "test_waves": -1,
        "length": 1,
        "period": 0,
        "horizon": 0,
        "noise": -0.1,
        "phase_noise": -1.0,
        "num_channels": 2,
        "season": 0,
    }
    with pytest.raises(ConfigError) as caught:
        module(**options)
    assert all(f"--data.{option}" in str(caught.value) for option in options)
    with pytest.raises(DataError, match=r"val split has nothing in it\. Set --data\.val_waves ab"):
        ready(val_waves=0).val_dataloader()
    with pytest.raises(ConfigError, match=r"--data\.season=91 is more than the 90 steps before"):
        ready(season=91)


def test_there_is_no_file_to_check():
    assert read_all(module().iter_readings()) == []
