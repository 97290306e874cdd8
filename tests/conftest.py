"""A date translator that every test of a trained checkpoint shares, and the trainers they need."""

from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import settings

import seq2seq
from datamodules.synthetic import DatesDataModule
from seq2seq.predictor import Predictor
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.translation import Translator

# A slow machine is no fault of what is tested.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")

VOCAB = 120
STEPS = 400


def trainer(folder: Path, **options: object) -> pl.Trainer:
    """Return a trainer that says nothing and writes only what it is asked for."""
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return pl.Trainer(default_root_dir=folder, **{**defaults, **options})


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., pl.Trainer]:
    return lambda **options: trainer(tmp_path, **options)


@pytest.fixture(scope="session")
def make_dates(tmp_path_factory) -> Callable[..., DatesDataModule]:
    """Return what makes data modules over the same generated files."""
    root = tmp_path_factory.mktemp("dates")

    def make(**options: object) -> DatesDataModule:
        sizes = {"train_count": 8000, "val_count": 60, "test_count": 50}
        return DatesDataModule(
            str(root), **{**sizes, "vocab_size": VOCAB, "batch_size": 48, **options}
        )

    return make


@pytest.fixture(scope="session")
def make_translator() -> Callable[..., Translator]:
    """Return what makes translators that fit the checkpoint."""

    def make(vocab_size: int = VOCAB, **options: object) -> Translator:
        optimization = Optimization(learning_rate=0.006, schedule="cosine", warmup_steps=30)
        defaults = {"embedding_size": 48, "hidden_size": 64, "dropout": 0.0}
        return Translator(vocab_size, **{**defaults, "optimization": optimization, **options})

    return make


@pytest.fixture(scope="session")
def trained(make_dates, make_translator, tmp_path_factory) -> Translator:
    """Return a translator of dates after some seconds of training, as it was in memory."""
    pl.seed_everything(1, verbose=False)
    folder = tmp_path_factory.mktemp("run")
    task = make_translator(label_smoothing=0.05)
    fitting = trainer(folder, max_steps=STEPS, gradient_clip_val=1.0, limit_val_batches=0)
    fitting.fit(task, make_dates())
    fitting.save_checkpoint(folder / "last.ckpt")
    task.checkpoint_path = folder / "last.ckpt"
    return task.eval()


@pytest.fixture(scope="session")
def checkpoint(trained) -> Path:
    """Return the path of the trained translator's checkpoint."""
    return trained.checkpoint_path


@pytest.fixture(scope="session")
def predictor(checkpoint) -> Predictor:
    """Return the trained translator, loaded from its checkpoint."""
    return seq2seq.load(checkpoint, "cpu")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    # Models as small as these only lose time when threads wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _fixed_seed():
    torch.manual_seed(1)
