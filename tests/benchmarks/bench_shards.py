"""Memory and speed of reading shards: flat in the size of the corpus, and as fast as files.

    python tests/benchmarks/bench_shards.py [--pictures 1000] [--factor 10]

Every figure is of a process of its own, which reads generated pictures in a shuffled order, without
loader workers. For memory, both corpora are small pictures, and as many are read of either. Speed
is per second of processor time, of which other programs take none: waiting for a disk is not in it.
Every ratio compares figures of this one run.
"""

import argparse
import csv
import io
import multiprocessing
import random
import re
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bench_translation import device_name
from PIL import Image

from datamodules import CaptionDataModule
from datamodules.shard_store import open_store
from datamodules.shard_writer import write_shards
from seq2seq.pictures import PictureGeometry

SPEED_SIDE = 256
MEMORY_SIDE = 16  # what grows is what is known of pictures, not the pictures
CAPTIONS = 5
WORDS = [f"word{number}" for number in range(500)]
OPTIONS = {"vocabulary": "word", "vocab_size": 504, "batch_size": 32}
REPEATS = 3
KINDS: dict[str, dict[str, Any]] = {
    "files": {},
    "shards, mixed out of all": {"format": "shards"},
    "shards, mixed out of 4": {"format": "shards", "shard_window": 4},
}


class Figures(NamedTuple):
    """What a process needed: memory at most, bytes; pictures per second of the processor."""

    most: int
    rate: float


def write_corpus(folder: Path, count: int, side: int) -> None:
    """Write JPEG pictures with captions; a hundred different ones, which take as long to decode."""
    generator = random.Random(1)
    contents = []
    for number in range(100):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        stream = io.BytesIO()
        picture = Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)
        picture.save(stream, "JPEG", quality=95)
        contents.append(stream.getvalue())
    (folder / "images").mkdir(parents=True)
    with (folder / "captions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("image", "caption", "split"))
        for number in range(count + 2):
            name, split = f"{number}.jpg", ("val", "test", "train")[min(number, 2)]
            (folder / "images" / name).write_bytes(contents[number % len(contents)])
            for _ in range(CAPTIONS):
                rows.writerow((name, " ".join(generator.choices(WORDS, k=12)), split))


def module(folder: Path, **options: Any) -> CaptionDataModule:
    """Return a data module of a corpus, prepared to be read."""
    source = folder / "shards"
    if "format" not in options:
        source = folder / "files/captions.csv"
        options["images"] = str(folder / "files/images")
    cache = str(folder / "cache")
    data = CaptionDataModule(str(source), cache_dir=cache, **OPTIONS, **options)
    data.prepare_data()
    data.setup("fit")
    return data


def _most_memory() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def read(folder: Path, epochs: int, options: dict[str, Any]) -> Figures:
    """Read some epochs of training."""
    data = module(folder, **options)
    data.show_to(PictureGeometry(224, "squash"), None)
    batches = data.train_dataloader()
    start = time.process_time()
    pictures = 0
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        pictures += sum(len(batch.inputs) for batch in batches)
    seconds = time.process_time() - start
    return Figures(_most_memory(), pictures / seconds)


def measure(folder: Path, epochs: int, options: dict[str, Any]) -> Figures:
    """Return the figures of a process that starts afresh."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(read, (folder, epochs, options))


def write(folder: Path, count: int, side: int) -> Figures:
    """Write the ``files`` below a folder as ``shards``."""
    data = module(folder)
    start = time.process_time()
    store = open_store(str(folder / "shards"))
    written = write_shards(data.shard_source(), store, count * side * 20, 2)
    rate = count / (time.process_time() - start)
    print(f"{count} pictures of {side} x {side}: {written.shards} shards", flush=True)
    return Figures(_most_memory(), rate)


def prepare(folder: Path, count: int, side: int) -> Figures:
    """Write a corpus as ``files`` and as ``shards``; return what the latter took."""
    write_corpus(folder / "files", count, side)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(write, (folder, count, side))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=1000, help="of the small corpus")
    parser.add_argument("--factor", type=int, default=10, help="how much larger the other one is")
    options = parser.parse_args()
    print(f"{device_name('cpu')}\n")
    small, large = options.pictures, options.factor * options.pictures
    with tempfile.TemporaryDirectory() as scratch:
        corpora = {
            "speed": (small, SPEED_SIDE),
            "small": (small, MEMORY_SIDE),
            "large": (large, MEMORY_SIDE),
        }
        written = {
            name: prepare(Path(scratch, name), count, side)
            for name, (count, side) in corpora.items()
        }
        more = written["large"].most - written["small"].most
        print(
            f"writing: {written['small'].most / 1e6:,.0f} and {written['large'].most / 1e6:,.0f} "
            f"MB, {more / (large - small):,.0f} bytes more per picture"
        )
        measure_memory(Path(scratch), small, large)
        measure_speed(Path(scratch, "speed"))


def measure_memory(scratch: Path, small: int, large: int) -> None:
    print(f"\n| memory, MB | {small} | {large} | ratio | more per picture, bytes |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for label, options in KINDS.items():
        used = [
            measure(scratch / "small", large // small, options).most,
            measure(scratch / "large", 1, options).most,
        ]
        print(
            f"| {label} | {used[0] / 1e6:,.0f} | {used[1] / 1e6:,.0f} | {used[1] / used[0]:.3f} | "
            f"{(used[1] - used[0]) / (large - small):,.0f} |",
            flush=True,
        )


def measure_speed(folder: Path) -> None:
    print("\n| pictures per processor second | rate | ratio |\n| --- | ---: | ---: |")
    baseline = 0.0
    for label, options in KINDS.items():
        rate = max(measure(folder, 1, options).rate for _ in range(REPEATS))
        baseline = baseline or rate
        print(f"| {label} | {rate:,.0f} | {rate / baseline:.2f} |", flush=True)


if __name__ == "__main__":
    main()
