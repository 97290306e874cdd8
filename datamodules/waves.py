"""Generated sine waves: the smallest series that a network must learn to continue."""

from collections.abc import Iterator

import numpy as np
import torch

from datamodules.base import Reading, option_problems
from datamodules.series_base import SeriesSplits, WindowDataModule
from datamodules.series_windows import SeriesWindows
from seq2seq.series import fit_scaling, no_scaling

# Waves are shifted by up to so many times the period option, either way.
_SHIFT_PERIODS = 4


def generate_waves(
    count: int,
    length: int,
    period: int,
    generator: np.random.Generator,
    phase_noise: float = 0.0,
    noise: float = 0.0,
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return sine waves that begin anywhere, ``(count, length)``.

    Args:
        count: How many.
        length: Number of steps of each.
        period: A wave repeats after 2 pi times as many steps.
        generator: Of where they begin, and of the noise.
        phase_noise: Standard deviation of the noise of the angle at each step, in radians.
        noise: Standard deviation of the noise of the value at each step.

    Source: the "time sequence prediction" example of PyTorch, whose waves these are without noise.
    """
    shift = generator.integers(-_SHIFT_PERIODS * period, _SHIFT_PERIODS * period, (count, 1))
    angle = (np.arange(length) + shift) / period
    angle = angle + phase_noise * generator.standard_normal(angle.shape)
    waves: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.sin(angle)
    return waves + noise * generator.standard_normal(waves.shape)


class SineDataModule(WindowDataModule):
    """Sine waves with the same period that begin anywhere; generated.

    A training wave has ``length`` steps. Any other goes on for ``horizon`` more: what it does there
    is to be forecast.

    Args:
        train_waves: Number of training waves.
        val_waves: Number of validation waves.
        test_waves: Number of test waves.
        length: Number of steps that are seen.
        period: A wave repeats after 2 pi times as many steps.
        horizon: Number of steps that are forecast from there on.
        phase_noise: Standard deviation of the noise of the angle at each step, in radians.
        noise: Standard deviation of the noise of the value at each step; of the truth, too.
        num_channels: Number of values at each step: 1.
        standardize: Let the model see the training waves with mean 0 and standard deviation 1.
        season: Number of steps after which a naive forecast repeats the wave; null for none.
        tbptt_steps: Length of the chunks that training goes through one after the other, with the
            state carried over and the gradient cut; null for whole waves.
        batch_size: Number of waves in a training batch; null for all, as L-BFGS wants.
        eval_batch_size: Number of waves in any other batch.
        num_workers: Number of processes that prepare batches; 0 for the main one.
        seed: Of the waves, and of the order of the batches.

    Raises:
        ConfigError: If options cannot work, alone or together; all of them are named.
    """

    def __init__(
        self,
        train_waves: int = 97,
        val_waves: int = 3,
        test_waves: int = 3,
        length: int = 1000,
        period: int = 20,
        horizon: int = 1000,
        phase_noise: float = 0.0,
        noise: float = 0.0,
        num_channels: int = 1,
        standardize: bool = False,
        season: int | None = None,
        tbptt_steps: int | None = None,
        batch_size: int | None = None,
        eval_batch_size: int = 64,
        num_workers: int = 0,
        seed: int = 1,
    ) -> None:
        self.counts = {"train": train_waves, "val": val_waves, "test": test_waves}
        self.length = length
        self.period = period
        self.phase_noise = phase_noise
        self.noise = noise
        self.standardize = standardize
        super().__init__(
            num_channels=num_channels,
            horizon=horizon,
            season=season,
            tbptt_steps=tbptt_steps,
            batch_size=batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            seed=seed,
        )

    def iter_readings(self) -> Iterator[Reading]:
        """Yield nothing: waves are in no file."""
        return iter(())

    def _make_splits(self) -> SeriesSplits:
        windows = {role: self._waves(role) for role in self.counts}
        train = windows["train"]
        scaling = no_scaling(1)
        if self.standardize:
            scaling = fit_scaling(train.values, train.is_known)
        return SeriesSplits(windows, scaling)

    def _waves(self, role: str) -> SeriesWindows:
        is_training = role == "train"
        count = self.counts[role]
        steps = self.length if is_training else self.length + self.horizon
        generator = np.random.default_rng((self.seed, [*self.counts].index(role)))
        waves = generate_waves(count, steps, self.period, generator, self.phase_noise, self.noise)
        values = torch.from_numpy(waves).unsqueeze(2)
        return SeriesWindows(
            values,
            torch.ones_like(values, dtype=torch.bool),
            np.stack([np.arange(count), np.zeros(count, dtype=np.int64)], axis=1),
            steps,
            warm_up=None if is_training else self.length,
            chunk_steps=self.tbptt_steps if is_training else None,
        )

    def _remedy(self, role: str) -> str:
        return f"Set --data.{role}_waves above 0."

    def _problems(self) -> Iterator[str]:
        """Yield what is wrong with the options, one sentence each."""
        yield from super()._problems()
        smallest = {
            "train_waves": (self.counts["train"], 1),
            "val_waves": (self.counts["val"], 0),
            "test_waves": (self.counts["test"], 0),
            "length": (self.length, 2),
            "period": (self.period, 1),
            "phase_noise": (self.phase_noise, 0),
            "noise": (self.noise, 0),
        }
        yield from option_problems(smallest, {})
        if self.num_channels != 1:
            yield f"--data.num_channels is {self.num_channels}: a wave has 1."
