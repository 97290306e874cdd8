"""Tiny texts whose label is which of two words comes first, and classifiers of them."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from conftest import trainer
from torch import Tensor
from torch.utils.data import DataLoader

from seq2seq.batches import Batch, TextInput
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tasks.text_classification import TextClassifier
from seq2seq.tokenizers import LabelVocabulary, WordTokenizer
from seq2seq.truncation import Keep, keep_part

LABELS = ("dark", "light")
WORDS = ["black", "white", "grey", "pale", "deep", "thin"]
TOKENIZER = WordTokenizer(WORDS)
LINES = ["white thin black", "", "black", "grey <b> & white pale black black", "  ", "...", "☃"]


def texts(count: int, seed: int, length: int = 8) -> list[tuple[str, str]]:
    """Return texts that have black and white in them, with their labels."""
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        words = list(generator.choice(WORDS[2:], generator.integers(0, length - 1)))
        for word in generator.permutation(WORDS[:2]):
            words.insert(generator.integers(len(words) + 1), word)
        label = LABELS[words.index("white") < words.index("black")]
        found.append((" ".join(words), label))
    return found


class ToyTexts(pl.LightningDataModule):
    """Serves ``texts``.

    Args:
        max_length: Most words of a text.
        keep: Which of them.
    """

    def __init__(self, max_length: int | None = None, keep: Keep = "start") -> None:
        super().__init__()
        self.max_length = max_length
        self.keep = keep
        self.tokenizers = {"source": TOKENIZER, "target": LabelVocabulary(LABELS)}

    def label_counts(self) -> Tensor:
        return torch.tensor([3, 1])

    def batch(self, pairs: list[tuple[str, str]]) -> Batch:
        kept = (keep_part(TOKENIZER.encode(text), self.max_length, self.keep) for text, _ in pairs)
        rows = [[*ids, EOS_ID] for ids in kept]
        inputs = TextInput(pad_sequences(rows), torch.tensor([len(row) for row in rows]))
        target = torch.tensor([self.tokenizers["target"].encode(label) for _, label in pairs])
        references = tuple((label,) for _, label in pairs)
        return Batch(inputs, target, torch.arange(len(pairs)), references)

    def loader(self, count: int, seed: int) -> DataLoader:
        return DataLoader(texts(count, seed), batch_size=16, collate_fn=self.batch)

    def train_dataloader(self) -> DataLoader:
        return self.loader(64, 1)

    def val_dataloader(self) -> DataLoader:
        return self.loader(16, 2)

    def test_dataloader(self) -> DataLoader:
        return self.loader(16, 3)


def classifier(**options: Any) -> TextClassifier:
    """Return a classifier that has learned nothing, in evaluation mode, with its vocabularies."""
    torch.manual_seed(1)
    defaults = {
        "vocab_size": TOKENIZER.vocab_size,
        "num_classes": len(LABELS),
        "embedding_size": 6,
        "hidden_size": 7,
        "decoder_size": 9,
        "dropout": 0.0,
    }
    task = TextClassifier(**{**defaults, **options}).eval()
    names = (*LABELS, "plain")[: task.num_classes]
    task.tokenizers = {"source": TOKENIZER, "target": LabelVocabulary(names)}
    return task


def save_classifier(folder: Path, **options: Any) -> Path:
    """Write the checkpoint of a classifier that has learned nothing; return its path."""
    task = classifier(**options)
    for parameter in task.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter)  # so that it tells texts apart
    saving = trainer(folder)
    saving.strategy.connect(task)
    saving.save_checkpoint(folder / "classifier.ckpt")
    return folder / "classifier.ckpt"
