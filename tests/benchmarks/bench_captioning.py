"""Speed of the captioner: training on cached features, and decoding in batches.

    python tests/benchmarks/bench_captioning.py --data.captions FLICKR8K/dataset_flickr8k.json \\
        --data.images FLICKR8K/images [--weights FILE] [--device cuda]

Every ratio compares figures of this one run. Weights change what the network sees, not its speed.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import cycle, islice

import lightning.pytorch as pl
import torch
from bench_translation import WARMUP_BATCHES, device_name, synchronise
from torch.nn.utils import clip_grad_norm_

from datamodules import CaptionDataModule
from seq2seq.batches import Batch
from seq2seq.search import SearchOptions
from seq2seq.tasks.captioning import Captioner

PICTURES = 1000


def train(captioner: Captioner, batches: Iterator[Batch], count: int) -> float:
    """Return pictures per second over ``count`` batches, reading them included."""
    optimizer = torch.optim.Adam(
        (parameter for parameter in captioner.parameters() if parameter.requires_grad), fused=True
    )
    captioner.train()
    pictures, start = 0, 0.0
    for number, batch in enumerate(islice(batches, count + WARMUP_BATCHES)):
        if number == WARMUP_BATCHES:
            synchronise(captioner.device.type)
            start = time.perf_counter()
        moved = captioner.transfer_batch_to_device(batch, captioner.device, 0)
        with torch.autocast(captioner.device.type, torch.bfloat16):  # as the recipes train
            loss = captioner.compute_loss(moved)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        clip_grad_norm_(captioner.parameters(), 1.0)
        optimizer.step()
        if number >= WARMUP_BATCHES:
            pictures += len(batch.inputs)
    synchronise(captioner.device.type)
    return pictures / (time.perf_counter() - start)


def caption(
    captioner: Captioner, features: torch.Tensor, size: int, options: SearchOptions
) -> float:
    """Return pictures per second, from features to text."""
    captioner.eval()
    start = time.perf_counter()
    for batch in features.split(size):
        moved = Batch(batch.to(captioner.device), None, torch.arange(len(batch)))
        captioner.predict_batch(moved, options)
    synchronise(captioner.device.type)
    return len(features) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.captions", dest="captions", required=True)
    parser.add_argument("--data.images", dest="images", required=True)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--weights", default=None, help="file of trained weights of the backbone")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--batches", type=int, default=30, help="batches per training figure")
    parser.add_argument("--epochs", type=float, default=1.0, help="training before decoding")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pl.seed_everything(1, verbose=False)

    print(f"{device_name(options.device)}, {options.threads} threads, torch {torch.__version__}\n")
    with tempfile.TemporaryDirectory() as cache:
        data = CaptionDataModule(
            options.captions,
            options.images,
            vocabulary="word",
            vocab_size=2541,
            minimum_count=5,
            cache_features=True,
            cache_dir=cache,
            batch_size=16,
        )
        captioner = Captioner(
            2541,
            options.backbone,
            backbone_weights=options.weights,
            image_resize="squash",
            memory_size=384,
            hidden_size=384,
            variational_dropout=True,
        )
        trainer = pl.Trainer(
            accelerator=options.device.replace("cuda", "gpu"), logger=False, barebones=True
        )
        captioner.trainer = trainer
        trainer.datamodule = data  # type: ignore[attr-defined]
        measure(captioner.to(options.device), data, options)


def measure(captioner: Captioner, data: CaptionDataModule, options: argparse.Namespace) -> None:
    data.prepare_data()
    data.setup("fit")
    data._splits["train"] = data._splits["train"][:PICTURES]
    captioner.setup("fit")
    start = time.perf_counter()
    cached = data.train_dataloader()
    seconds = time.perf_counter() - start
    pictures = len(cached.dataset)
    print(
        f"features of {pictures} pictures: {seconds:.0f} s, {pictures / seconds:.0f} pictures/s\n"
    )
    data.show_to(captioner.geometry, None)
    live = data.train_dataloader()
    print("| training, pictures/s (5 captions each) | rate | ratio |")
    print("| --- | ---: | ---: |")
    baseline = 0.0
    for label, loader in [("frozen network, every picture each time", live), ("cached", cached)]:
        rate = train(captioner, cycle(iter(loader)), options.batches)
        baseline = baseline or rate
        print(f"| {label} | {rate:,.1f} | {rate / baseline:.1f} |", flush=True)
    # So that captions have the length of captions.
    train(captioner, cycle(iter(cached)), int(options.epochs * len(cached)))

    views = cached.dataset._views
    features = torch.stack([views[place] for place in range(PICTURES)])
    beam = replace(captioner.decoding, beam_size=3)
    print(f"\n| captioning {PICTURES} cached pictures, beam 3, pictures/s | rate | ratio |")
    print("| --- | ---: | ---: |")
    baseline = 0.0
    for label, some, size in [
        ("one at a time", features[:200], 1),
        ("batches of 64", features, 64),
    ]:
        rate = caption(captioner, some, size, beam)
        baseline = baseline or rate
        print(f"| {label} | {rate:,.0f} | {rate / baseline:.1f} |", flush=True)


if __name__ == "__main__":
    main()
