"""Multimodal sequence-to-sequence learning with recurrent decoders, on PyTorch Lightning."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from seq2seq.predictor import Predictor
    from seq2seq.tasks.forecasting import Forecaster

__all__ = ["load", "load_forecaster"]


def load(
    path: str | Path,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    precision: Literal["32", "bf16"] = "32",
) -> "Predictor":
    """Return a predictor for a checkpoint; see ``seq2seq.predictor.load``."""
    # Imported here so that loader workers, which need only the tokenizer, start quickly.
    from seq2seq.predictor import load as load_predictor

    return load_predictor(path, device, precision)


def load_forecaster(
    path: str | Path, device: Literal["auto", "cpu", "cuda"] = "auto"
) -> "Forecaster":
    """Return the forecaster of a checkpoint; see ``seq2seq.forecast.load_forecaster``."""
    from seq2seq.forecast import load_forecaster as load_from

    return load_from(path, device)
