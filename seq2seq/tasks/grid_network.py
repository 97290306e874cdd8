"""Tasks that look through a network of torchvision, frozen or fine-tuned."""

import logging
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from seq2seq.batches import Batch
from seq2seq.encoders.grid import GridNetwork
from seq2seq.feature_cache import (
    FeatureArray,
    Pictures,
    compute_features,
    feature_folder,
    feature_settings,
    write_features,
)
from seq2seq.first_process import do_once
from seq2seq.optim import ParameterGroup
from seq2seq.tasks.base import SequenceTask

_log = logging.getLogger(__name__)

NETWORK_NOT_SAVED = (
    "backbone_weights",
    "fine_tune_start",
    "fine_tune_learning_rate",
    "fine_tune_statistics",
)
"""Arguments kept out of a checkpoint, for the reason of ``NOT_SAVED``."""


class GridNetworkTask(SequenceTask):
    """A task with a ``GridNetwork``: loads its weights, and lets its layers learn in time.

    A subclass names it before anything else of ``SequenceTask``.

    Args:
        backbone_weights: torchvision's name of weights, or a file of them; None for none.
        fine_tune_start: Optimiser steps before the layers to be fine-tuned begin to learn.
        fine_tune_learning_rate: Their learning rate after the warm-up; None for that of all else.
        **options: Of the class that comes next.
    """

    def __init__(
        self,
        *,
        backbone_weights: str | None,
        fine_tune_start: int,
        fine_tune_learning_rate: float | None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.backbone_weights = backbone_weights
        self.fine_tune_start = fine_tune_start
        self.fine_tune_learning_rate = fine_tune_learning_rate

    @property
    @abstractmethod
    def grid_network(self) -> GridNetwork | None:
        """The network; None where the task was built without one."""

    def load_initial_weights(self) -> None:
        """Load the weights of the backbone, or of a whole task.

        Raises:
            ConfigError: If the backbone's do not fit.
            CheckpointError: If the task's do not.
        """
        network = self.grid_network
        if network is not None and self.init_from is None:
            if self.backbone_weights is not None:
                network.load_weights(self.backbone_weights)
            elif not network.can_fine_tune:
                _log.warning(
                    "The backbone has no weights and does not learn: it stays as chance made it. "
                    "Set --model.backbone_weights or --model.init_from, or --model.fine_tune_from "
                    "to all."
                )
        super().load_initial_weights()

    def cached_features(self, pictures: Pictures, cache: Path) -> FeatureArray:
        """Return the features of some pictures, computing them if that has not been done.

        With several processes this is a collective call; the first of them computes.

        Args:
            pictures: The pictures.
            cache: Folder of the cache.

        Raises:
            DataError: If a picture cannot be read, or the cache not be written or used.
        """
        network = self.grid_network
        assert network is not None
        settings = feature_settings(network, self.input_settings(), pictures)
        folder = feature_folder(cache, settings)
        was_training = network.training
        do_once(partial(write_features, folder, network.eval(), pictures, settings, self.device))
        network.train(was_training)
        return FeatureArray(folder, settings)

    @property
    def feature_shape(self) -> tuple[int, int]:
        """Cells and channels of the features of a picture."""
        network = self.grid_network
        assert network is not None
        rows, columns = network.grid
        return rows * columns, network.channels

    def feature_origin(self) -> dict[str, Any]:
        """Return what the features of a picture depend on, besides itself, in plain values."""
        network = self.grid_network
        assert network is not None
        return {
            "backbone": network.backbone_name,
            "backbone_layer": network.layer,
            **self.input_settings(),
            "extractor": network.fingerprint(),
        }

    def compute_features(self, pictures: Pictures) -> Iterator[NDArray[np.float16]]:
        """Yield the features of each picture, ``(cells, channels)``, in order.

        Raises:
            DataError: If a picture cannot be read.
        """
        network = self.grid_network
        assert network is not None
        for batch in compute_features(network, pictures, self.device):
            yield from batch

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the layers of the backbone that learn, where they have a rate of their own."""
        rate, network = self.fine_tune_learning_rate, self.grid_network
        if rate is None or network is None:
            return []
        tuned = [p for p in network.backbone.parameters() if p.requires_grad]
        return [ParameterGroup(tuned, rate)] if tuned else []

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Let the backbone learn from its step on."""
        super().on_train_batch_start(batch, batch_idx)
        network = self.grid_network
        if network is None:
            return
        is_time = network.can_fine_tune and self.global_step >= self.fine_tune_start
        if is_time != network.is_fine_tuning:
            network.fine_tune(is_time)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave a backbone alone whose time has not come, weight decay included."""
        del optimizer
        network = self.grid_network
        if network is not None and network.can_fine_tune and not network.is_fine_tuning:
            for parameter in network.backbone.parameters():
                parameter.grad = None


def fine_tuning_problems(fine_tune_start: int, fine_tune_learning_rate: float | None) -> list[str]:
    """Return what is wrong with the options, one sentence each."""
    problems = []
    if fine_tune_start < 0:
        problems.append(f"--model.fine_tune_start={fine_tune_start} must not be negative.")
    if fine_tune_learning_rate is not None and not fine_tune_learning_rate > 0:
        problems.append(
            f"--model.fine_tune_learning_rate={fine_tune_learning_rate} must be greater than 0."
        )
    return problems
