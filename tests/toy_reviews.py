"""Tiny reviews on disk, in every format."""

import csv
import gzip
import json

import numpy as np

from datamodules import ReviewDataModule

NOUNS = ["film", "plot", "cast", "end", "music", "scene", "hero"]
WORDS = {"bad": ["dull", "awful", "weak", "poor"], "good": ["great", "fine", "superb", "lovely"]}


def reviews(count, seed, classes=("bad", "good")):
    """Return texts of 1 to 9 words and their labels, sorted by label."""
    generator = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = classes[number * len(classes) // count]
        words = generator.choice([*NOUNS, *WORDS.get(label, [label])], generator.integers(1, 10))
        found.append((" ".join(words), label))
    return found


def write_jsonl(path, rows, text="text", label="label", **more):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps({text: row[0], label: row[1], **more}) + "\n")
    return path


def write_table(path, rows, header=("text", "label"), separator=","):
    with (gzip.open if path.suffix == ".gz" else open)(
        path, "wt", encoding="utf-8", newline=""
    ) as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return path


def write_splits(folder, train=60, test=11):
    """Write ``train.jsonl`` and ``test.jsonl.gz``."""
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "train.jsonl", reviews(train, 1))
    write_jsonl(folder / "test.jsonl.gz", reviews(test, 2))
    return folder


def write_folders(root, files):
    """Write text files, by their names below the root."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        content = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return root


def module(source, **options):
    return ReviewDataModule(str(source), **({"num_classes": 2, "vocab_size": 14} | options))


def prepared(source, **options):
    data = module(source, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def corpus(data, role):
    return data._corpora[role]


def contents(data, role):
    """Return the texts of a split and their labels, in its order."""
    part = corpus(data, role)
    return [(part.source.text.text(row), part.target.text.text(row)) for row in range(len(part))]
