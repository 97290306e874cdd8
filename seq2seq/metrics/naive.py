"""The forecast that any other has to beat: what was one season before."""

import torch
from torch import Tensor


def seasonal_naive(values: Tensor, is_known: Tensor, warm_up: int, season: int) -> Tensor:
    """Return as the forecast of each step what was last known of the same place in the season.

    It goes back from the end of the warm-up by as many seasons as it takes to find a value; where
    there is none, it takes the last value that is known of the channel, or 0.

    Args:
        values: ``(batch, time, channels)``; those from ``warm_up`` on are not looked at.
        is_known: False where a value is missing, bool ``(batch, time, channels)``.
        warm_up: Number of steps before the forecast.
        season: Number of steps of a season; 1 for the last value, whatever the season.

    Returns:
        Forecasts of the steps from ``warm_up`` on, ``(batch, time - warm_up, channels)``.

    Source: Hyndman and Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., section 5.2.
    """
    horizon = values.shape[1] - warm_up
    forecast = _last_known(values[:, :warm_up], is_known[:, :warm_up])
    forecast = forecast.unsqueeze(1).repeat(1, season, 1)  # (batch, season, channels)
    is_found = torch.zeros_like(forecast, dtype=torch.bool)
    for end in range(warm_up, 0, -season):
        size = min(season, end)  # the first season may be cut off at its beginning
        known = is_known[:, end - size : end] & ~is_found[:, season - size :]
        forecast[:, season - size :][known] = values[:, end - size : end][known]
        is_found[:, season - size :] |= known
    return forecast[:, torch.arange(horizon, device=values.device) % season]


def _last_known(values: Tensor, is_known: Tensor) -> Tensor:
    """Return the last known value of each channel, 0 where there is none, ``(batch, channels)``."""
    steps = torch.arange(1, values.shape[1] + 1, device=values.device)[:, None]
    last = (is_known * steps).argmax(dim=1, keepdim=True)  # where none is known, step 0
    found = torch.where(is_known, values, 0.0).gather(1, last)
    return found.squeeze(1)
