"""A toy language pair on disk, for the tests of translation data."""

from pathlib import Path

import numpy as np

from datamodules import TranslationDataModule

ONSETS, VOWELS, SHIFTED = "bdfgklmnprst", "aeiou", "eioua"
WORDS = [a + b + c + d for a in ONSETS for b in VOWELS for c in ONSETS[:4] for d in VOWELS[:2]]


def sentences(count, seed):
    generator = np.random.default_rng(seed)
    return [" ".join(generator.choice(WORDS, generator.integers(1, 9))) for _ in range(count)]


def translate(text):
    return text.translate(str.maketrans(VOWELS, SHIFTED))


def write(folder, split, source):
    (folder / f"{split}.en").write_text("".join(f"{line}\n" for line in source))
    (folder / f"{split}.de").write_text("".join(f"{translate(line)}\n" for line in source))


def write_splits(folder: Path) -> Path:
    folder.mkdir()
    for split, count, seed in (("train", 90, 1), ("val", 11, 2), ("test", 7, 3)):
        write(folder, split, sentences(count, seed))
    return folder


def module(root, **options):
    return TranslationDataModule(str(root), **({"vocab_size": 40, "batch_tokens": 150} | options))


def prepared(root, **options):
    data = module(root, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def cached(root, pattern="corpus-*"):
    return {path.name for path in (root / ".seq2seq_cache").glob(pattern)}


def corpus(data, role):
    return data._corpora[role]
