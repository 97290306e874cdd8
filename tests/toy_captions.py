"""A tiny caption corpus on disk, the captioner that learns it, and what it needs to do so."""

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchvision.models import get_model

from datamodules import CaptionDataModule
from seq2seq.tasks.captioning import Captioner
from seq2seq.tasks.options import Optimization

BACKBONE = "mobilenet_v3_small"
VOCAB = 15  # all words of the training captions, and the special ids


class Entry(NamedTuple):
    """A picture of the corpus."""

    name: str
    captions: tuple[str, ...]
    split: str


ENTRIES = [
    Entry("train/0.png", ("A red square.", "There is a red square."), "train"),
    Entry("train/1.png", ("A green square.", "There is a green square."), "train"),
    Entry("train/2.png", ("A square on the left.", "A blue square on the left."), "train"),
    Entry("train/3.png", ("A red shape.", "There is a red shape.", "A shape."), "train"),
    Entry("train/4.png", ("A green shape.",), "train"),
    Entry("train/5.png", ("A blue shape.", "There is a blue shape."), "train"),
    Entry("rest/0.png", ("A red square.", "A shape."), "restval"),
    Entry("val/0.png", ("A green square.", "A green ostrich."), "val"),
    Entry("val/1.png", ("A red shape.",), "val"),
    Entry("val/2.png", ("A blue shape.", "A shape."), "val"),
    Entry("test/0.png", ("A red square.", "A zebra."), "test"),
    Entry("test/1.png", ("A green shape.", "A shape."), "test"),
]


def of_split(split: str) -> list[Entry]:
    return [entry for entry in ENTRIES if entry.split == split]


def write_pictures(folder: Path, entries: list[Entry] = ENTRIES) -> Path:
    """Write pictures of which no two are alike, and none is its mirror image."""
    for number, entry in enumerate(entries):
        path = folder / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(patches).resize((40, 36), Image.Resampling.NEAREST).save(path)
    return folder


def write_captions(path: Path, kind: str, entries: list[Entry] = ENTRIES) -> Path:
    """Write captions in one of the formats that are known."""
    lines = [(entry.name, text, entry.split) for entry in entries for text in entry.captions]
    with path.open("w", newline="", encoding="utf-8") as file:
        if kind in ("csv", "tsv"):
            delimiter = {"csv": ",", "tsv": "\t"}[kind]
            writer = csv.writer(file, delimiter=delimiter)
            writer.writerows([("image", "caption", "split"), *lines])
        elif kind == "jsonl":
            names = ("image", "captions", "split")
            file.writelines(
                json.dumps(dict(zip(names, entry, strict=True))) + "\n" for entry in entries
            )
        elif kind == "flickr":
            file.writelines(
                f"{entry.name}#{number}\t{text}\n"
                for entry in entries
                for number, text in enumerate(entry.captions)
            )
        else:
            json.dump({"karpathy": _karpathy, "coco": _coco}[kind](entries), file)
    return path


def _karpathy(entries: list[Entry]) -> dict[str, Any]:
    images = []
    for number, (name, captions, split) in enumerate(entries):
        sentences = [{"raw": text, "tokens": text.split()} for text in captions]
        folder, _, file = name.rpartition("/")
        image = {"filename": file, "filepath": folder, "imgid": number}
        images.append({**image, "split": split, "sentences": sentences})
    return {"images": images}


def _coco(entries: list[Entry]) -> dict[str, Any]:
    images = [{"id": 50 + n, "file_name": entry.name} for n, entry in enumerate(entries)]
    texts = [(50 + n, text) for n, entry in enumerate(entries) for text in entry.captions]
    annotations = [
        {"id": n, "image_id": image, "caption": text} for n, (image, text) in enumerate(texts)
    ]
    return {"images": images, "annotations": annotations}


def write_corpus(folder: Path, kind: str = "csv") -> Path:
    """Write pictures and captions; return the folder, which ``module`` takes."""
    write_pictures(folder / "images")
    ending = {"karpathy": "json", "coco": "json", "flickr": "txt"}.get(kind, kind)
    write_captions(folder / f"captions.{ending}", kind)
    return folder


def module(root: Path, **options: Any) -> CaptionDataModule:
    [captions] = root.glob("captions.*")
    defaults = {"vocabulary": "word", "vocab_size": VOCAB, "batch_size": 4, "eval_batch_size": 2}
    return CaptionDataModule(str(captions), str(root / "images"), **{**defaults, **options})


def prepared(root: Path, **options: Any) -> CaptionDataModule:
    data = module(root, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def write_weights(path: Path) -> Path:
    """Write weights of the whole backbone: untrained, but with statistics of real activations.

    Without, an untrained network makes nearly the same features of all pictures.
    """
    torch.manual_seed(4)
    network = get_model(BACKBONE, weights=None).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network(interpolate(torch.rand(64, 3, 3, 4), (32, 32)) * 4 - 2)
    torch.save(network.state_dict(), path)
    return path


def captioner(**options: Any) -> Captioner:
    """Return a captioner that learns the corpus in seconds."""
    defaults = {
        "backbone": BACKBONE,
        "backbone_layer": "features.3",
        "backbone_weights": None,
        "image_size": 32,
        "image_resize": "squash",
        "memory_size": 18,
        "embedding_size": 20,
        "hidden_size": 28,
        "dropout": 0.0,
        "label_smoothing": 0.0,
        "max_caption_length": 9,
        "optimization": Optimization(learning_rate=0.015),
    }
    return Captioner(VOCAB, **{**defaults, **options})
