"""Series of numbers: how they are read, what is missing in them, and how they are scaled."""

from seq2seq.series.base import (
    Missing,
    Series,
    SeriesScaling,
    fit_scaling,
    interpolate,
    no_scaling,
)
from seq2seq.series.files import read_all_series, read_series

__all__ = [
    "Missing",
    "Series",
    "SeriesScaling",
    "fit_scaling",
    "interpolate",
    "no_scaling",
    "read_all_series",
    "read_series",
]
