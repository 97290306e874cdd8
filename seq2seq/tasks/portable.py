"""What makes a checkpoint complete: tokenizers and input settings travel with the weights."""

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from seq2seq.checkpoints import CHECKPOINT_KEY, read_checkpoint
from seq2seq.errors import CheckpointError, ConfigError
from seq2seq.tokenizers import LabelVocabulary, Tokenizer, tokenizer_from_tensor

_MOST_NAMED = 10  # labels


class PortableTask(pl.LightningModule, ABC):
    """A task whose checkpoint is all that its users need.

    The tokenizers travel from the data module into the task, and with it into the checkpoint.

    Args:
        init_from: Checkpoint whose weights a new training starts from; None to start from scratch.

    Attributes:
        tokenizers: By their role, from the data module or the checkpoint.
    """

    def __init__(self, init_from: str | None = None) -> None:
        super().__init__()
        self.init_from = init_from
        self.tokenizers: dict[str, Tokenizer] = {}

    @abstractmethod
    def expected_vocab_sizes(self) -> dict[str, int]:
        """Return the size that each tokenizer must have, by its role."""

    def input_settings(self) -> dict[str, Any]:
        """Return how raw inputs are prepared, in plain values, by the names of the options."""
        return {}

    def setup(self, stage: str) -> None:
        """Take over the tokenizers of the data module.

        Raises:
            ConfigError: If a tokenizer has another size than the model.
        """
        del stage
        tokenizers = getattr(getattr(self.trainer, "datamodule", None), "tokenizers", None)
        if tokenizers is not None:
            self._take_over(tokenizers)

    def load_initial_weights(self) -> None:
        """Load what a new training starts from; one that is resumed goes on from its checkpoint.

        Raises:
            CheckpointError: If the weights do not fit.
        """
        if self.init_from is not None:
            self._start_from(Path(self.init_from))

    def _take_over(self, tokenizers: dict[str, Tokenizer]) -> None:
        for role, size in self.expected_vocab_sizes().items():
            if tokenizers[role].vocab_size != size:
                raise ConfigError(
                    f"The {role} tokenizer has {tokenizers[role].vocab_size} pieces, the model "
                    f"expects {size}. Set --data.vocab_size or --data.source_vocab_size to the "
                    "tokenizer's size; the model takes it from there."
                )
        self.tokenizers = dict(tokenizers)

    def _start_from(self, path: Path) -> None:
        checkpoint = read_checkpoint(path)
        self.on_load_checkpoint(checkpoint)
        try:
            self.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: its weights do not fit the model ({' '.join(str(error).split())[:300]}). "
                "Give the model the options that the checkpoint was trained with, or another "
                "--model.init_from."
            ) from error

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what a checkpoint needs to be used alone; plain types and tensors only."""
        checkpoint[CHECKPOINT_KEY] = {
            "version": version("seq2seq-lightning"),
            "task": type(self).__name__,
            "tokenizers": {role: item.to_tensor() for role, item in self.tokenizers.items()},
            "input_settings": self.input_settings(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the tokenizers out of a checkpoint.

        Raises:
            CheckpointError: If it is of another task or project, or its inputs were prepared in
                another way, or the data module brings another tokenizer than the checkpoint's.
        """
        own = checkpoint.get(CHECKPOINT_KEY, {"task": "of another project"})
        if own["task"] != type(self).__name__:
            raise CheckpointError(
                f"The checkpoint is not one of the task {type(self).__name__}, but {own['task']}. "
                "Give --ckpt_path one that this task wrote, or choose the other task as --model."
            )
        self._check_input_settings(own.get("input_settings", {}))
        saved = own["tokenizers"]
        loaded = {role: tokenizer_from_tensor(tensor) for role, tensor in saved.items()}
        for role, tokenizer in loaded.items():
            present = self.tokenizers.get(role, tokenizer)
            if present.fingerprint != tokenizer.fingerprint:
                raise CheckpointError(
                    f"{_difference(role, tokenizer, present)} Use the training data and options it "
                    "was trained with, or start a new run without --ckpt_path."
                )
        self.tokenizers = loaded

    def _check_input_settings(self, saved: dict[str, Any]) -> None:
        present = self.input_settings()
        different = [name for name in present if name in saved and saved[name] != present[name]]
        if different:
            listed = ", ".join(f"{name} {saved[name]} (now {present[name]})" for name in different)
            raise CheckpointError(
                f"The checkpoint was trained on inputs prepared in another way: {listed}. "
                "Set these --model options to the checkpoint's values."
            )


def _difference(role: str, saved: Tokenizer, present: Tokenizer) -> str:
    """Return what a checkpoint's tokenizer and the data module's disagree about."""
    if isinstance(saved, LabelVocabulary) and isinstance(present, LabelVocabulary):
        sides = {"it has": (saved, present), "the data have": (present, saved)}
        alone = [
            f"only {side} {_some_of(names)}"
            for side, (own, other) in sides.items()
            if (names := sorted(set(own.names) - set(other.names)))
        ]
        if alone:
            return f"The checkpoint was trained with other labels: {'; '.join(alone)}."
    return (
        f"The checkpoint was trained with another {role} tokenizer than the data module's, so its "
        "ids mean other words."
    )


def _some_of(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    listed = ", ".join(map(repr, names[:_MOST_NAMED]))
    return f"{listed} and {more} more" if more > 0 else listed
