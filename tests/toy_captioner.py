"""A captioner that has learned nothing, and a folder of pictures for it, good and bad ones."""

from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from PIL import Image

from seq2seq.tasks.captioning import Captioner
from seq2seq.tokenizers import WordTokenizer

SENTENCES = ["a dog runs on the beach", "two children play in snow", "a man rides his bike"]
# In the order in which a folder is read.
GOOD = ["a/dog.jpg", "a/gray.png", "b/deep/dog.bmp", "b/dog.jpg", "cmyk.jpg", "dog.jpg", "dog.png"]
BAD = ["a/broken.jpg", "empty.png", "text.jpg"]


def save_captioner(folder: Path, **options: object) -> Path:
    """Write the checkpoint of a captioner that tells pictures apart; return its path."""
    torch.manual_seed(3)
    tokenizer = WordTokenizer.train(SENTENCES, 17)
    sizes = {"image_size": 32, "memory_size": 12, "embedding_size": 10, "hidden_size": 14}
    task = Captioner(
        17, "resnet18", "layer1", None, **{**sizes, "max_caption_length": 9, **options}
    )
    task.tokenizers = {"target": tokenizer}
    for parameter in (*task.decoder.parameters(), *task.encoder.projection.parameters()):
        torch.nn.init.normal_(parameter)
    trainer = pl.Trainer(
        default_root_dir=folder, accelerator="cpu", logger=False, enable_checkpointing=False
    )
    trainer.strategy.connect(task)
    trainer.save_checkpoint(folder / "captioner.ckpt")
    return folder / "captioner.ckpt"


def write_pictures(root: Path) -> Path:
    """Fill a folder with pictures, other files, and pictures in a hidden folder."""
    generator = np.random.default_rng(5)
    for number, name in enumerate(GOOD):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        patches = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
        picture = Image.fromarray(patches).resize((50 + number, 40), Image.Resampling.NEAREST)
        picture.convert({"gray": "L", "cmyk": "CMYK"}.get(path.stem, "RGB")).save(path)
    whole = (root / "dog.jpg").read_bytes()
    (root / "a/broken.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").write_bytes(b"")
    (root / "text.jpg").write_text("not a picture")
    (root / "notes.md").write_text("# Notes\n\nWhere they were taken.\n")
    (root / "hidden/.thumbnails").mkdir(parents=True)
    (root / "hidden/.thumbnails/dog.jpg").write_bytes(whole)
    return root
