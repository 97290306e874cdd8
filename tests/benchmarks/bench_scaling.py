"""Scaling on paper: what is measured on one device, and what follows for many.

    python tests/benchmarks/bench_scaling.py --data.root MULTI30K [--device cuda]

Measured: the time of a step of the Multi30k recipe and of one with ten times the weights, the size
of their gradients, and how fast one core reads the corpus. Computed, from these sizes and from what
a GPU and its network are assumed to do: the efficiency of many GPUs, and the cores and the storage
that feed them.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from typing import NamedTuple

import torch
from bench_translation import device_name, synchronise
from torch.nn.utils import clip_grad_norm_

from datamodules import TranslationDataModule
from seq2seq.batches import Batch
from seq2seq.sequences import PAD_ID
from seq2seq.tasks.translation import Translator

VOCAB, SENTENCES = 6000, 128  # as the recipe multi30k_en_de has them
SIZES = {"recipe": (256, 320), "10 times larger": (896, 1152)}  # embedding, hidden
WARMUP_BATCHES = 2
PROCESSES = (8, 64, 512)
FLOP_PER_WEIGHT = 6  # of a target token: a product and a sum, forward and twice backward
FIRST_BUCKET_BYTES, BUCKET_BYTES = 2**20, 25 * 2**20  # of DDP
BACKWARD_SHARE = 2 / 3  # of a step
PAGE_BYTES = 4096  # the least that is read of a memory-mapped file


class Network(NamedTuple):
    """The slowest link that a ring of GPUs passes through."""

    name: str
    bytes_per_second: float
    hop_seconds: float


# Assumed: 80 % of the nominal rate. A ring enters and leaves a machine of eight GPUs once, so that
# it has all of its adapters for itself; eight of 200 Gb/s are about as fast as NVLink within.
NVLINK = Network("NVLink in one machine", 150e9, 3e-6)
INFINIBAND = Network("8 x 200 Gb/s out of a machine", 150e9, 8e-6)
ETHERNET = Network("25 Gb/s out of a machine", 2.5e9, 30e-6)


class Measured(NamedTuple):
    """What was found out about a model on this device."""

    weights: int
    gradient_bytes: int
    step_seconds: float
    target_tokens: float
    tokens: float
    """Of both sides, in a step."""


def measure(task: Translator, batches: list[Batch], count: int, clock: Callable[[], float]):
    """Train on some batches and return what a step takes, tokens as they are on average."""
    device = task.device.type
    optimizer = torch.optim.Adam(task.parameters(), lr=1e-3, fused=True)
    task.train()
    start, used = 0.0, []
    for number, batch in enumerate(islice(cycle(batches), count + WARMUP_BATCHES)):
        if number == WARMUP_BATCHES:
            synchronise(device)
            start = clock()
        moved = task.transfer_batch_to_device(batch, task.device, 0)
        with torch.autocast(device, torch.bfloat16):
            loss = task.compute_loss(moved)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        if number >= WARMUP_BATCHES:
            used.append(batch)
    synchronise(device)
    seconds = (clock() - start) / count
    gradients = [weight.grad for weight in task.parameters() if weight.grad is not None]
    target = sum(int((batch.target != PAD_ID).sum()) for batch in used) / count
    source = sum(int(batch.inputs.lengths.sum()) for batch in used) / count
    return Measured(
        sum(gradient.numel() for gradient in gradients),
        sum(gradient.numel() * gradient.element_size() for gradient in gradients),
        seconds,
        target,
        source + target,
    )


def ring_seconds(size: int, processes: int, network: Network) -> float:
    """Return the time of a ring all-reduce.

    Source: Patarasuk and Yuan 2009, doi:10.1016/j.jpdc.2008.09.002.
    """
    hops = 2 * (processes - 1)
    return hops / processes * size / network.bytes_per_second + hops * network.hop_seconds


def tree_seconds(size: int, processes: int, network: Network) -> float:
    """Return the time of an all-reduce up and down two trees, which NCCL takes for many GPUs.

    Source: Sanders, Speck and Traeff 2009, doi:10.1016/j.parco.2009.09.001.
    """
    hops = 2 * math.ceil(math.log2(processes))
    return 2 * size / network.bytes_per_second + hops * network.hop_seconds


def exposed_seconds(
    step_seconds: float, gradient_bytes: int, reduce_seconds: Callable[[int], float]
) -> float:
    """Return by how much the all-reduce of the gradients outlasts the backward pass.

    As DDP does it: in buckets, one after the other, each as soon as the backward pass has filled
    it, which it is assumed to do at an even pace.

    Args:
        step_seconds: Of a step without any communication.
        gradient_bytes: Of all gradients.
        reduce_seconds: Time of the all-reduce of so many bytes.
    """
    sizes = [min(FIRST_BUCKET_BYTES, gradient_bytes)]
    while sum(sizes) < gradient_bytes:
        sizes.append(min(BUCKET_BYTES, gradient_bytes - sum(sizes)))
    backward_seconds = BACKWARD_SHARE * step_seconds
    filled, end = 0, 0.0
    for size in sizes:
        filled += size
        end = max(end, backward_seconds * filled / gradient_bytes) + reduce_seconds(size)
    return end - backward_seconds


def reading_rate(data: TranslationDataModule, clock: Callable[[], float]) -> tuple[float, int]:
    """Return tokens of both sides per second of a core, text to batches, and how many were read."""
    loader = data.train_dataloader()
    start, tokens = clock(), 0
    for batch in loader:
        tokens += int(batch.inputs.lengths.sum()) + int((batch.target != PAD_ID).sum())
    return tokens / (clock() - start), tokens


def print_scaling(model: str, found: Measured, step_seconds: float) -> None:
    for network, counts in (
        (NVLINK, PROCESSES[:1]),
        (INFINIBAND, PROCESSES[1:]),
        (ETHERNET, PROCESSES[1:]),
    ):
        for count in counts:
            cells = []
            for reduce in (ring_seconds, tree_seconds):
                cost = partial(reduce, processes=count, network=network)
                exposed = exposed_seconds(step_seconds, found.gradient_bytes, cost)
                cells += [f"{exposed * 1e3:.1f}", f"{step_seconds / (step_seconds + exposed):.0%}"]
            print(f"| {model} | {count} | {network.name} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.root", dest="root", required=True, help="folder of Multi30k")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batches", type=int, default=10, help="measured steps of each model")
    parser.add_argument("--gpu_tflops", type=float, default=100.0, help="assumed, sustained, bf16")
    parser.add_argument("--gpu_overhead_ms", type=float, default=10.0, help="assumed, of a step")
    options = parser.parse_args()
    # One core, whose own time counts: that other programs run does not.
    torch.set_num_threads(1)
    torch.manual_seed(1)
    step_clock = time.process_time if options.device == "cpu" else time.perf_counter

    data = TranslationDataModule(
        options.root, test="test_2016_flickr", vocab_size=VOCAB, batch_size=SENTENCES
    )
    data.prepare_data()
    data.setup("fit")
    tokens_per_second, tokens = reading_rate(data, time.process_time)
    batches = list(islice(data.train_dataloader(), options.batches))

    print(f"{device_name(options.device)}, torch {torch.__version__}\n")
    print("Measured:\n")
    print("| model | weights | gradient, MB | step, ms | target tokens a step |")
    print("| --- | ---: | ---: | ---: | ---: |")
    models = {}
    for name, (embedding_size, hidden_size) in SIZES.items():
        task = Translator(
            VOCAB,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            tied_weights="all",
            dropout=0.3,
            variational_dropout=True,
        )
        task.tokenizers = data.tokenizers
        found = measure(task.to(options.device), batches, options.batches, step_clock)
        models[name] = found
        print(
            f"| {name} | {found.weights / 1e6:.1f} M | {found.gradient_bytes / 1e6:.1f} "
            f"| {found.step_seconds * 1e3:,.0f} | {found.target_tokens:,.0f} |",
            flush=True,
        )
    print(f"\nOne core reads {tokens_per_second:,.0f} tokens/s ({tokens:,} in an epoch).")

    print("\nComputed, gradients of a step that outlast its backward pass:\n")
    print("| model | GPUs | slowest link | ring, ms | efficiency | trees, ms | efficiency |")
    print("| --- | ---: | --- | ---: | ---: | ---: | ---: |")
    steps = {}
    for name, found in models.items():
        flop = FLOP_PER_WEIGHT * found.weights * found.target_tokens
        assumed = options.gpu_overhead_ms / 1e3 + flop / (options.gpu_tflops * 1e12)
        steps[name] = found.step_seconds if options.device == "cuda" else assumed
        print_scaling(name, found, steps[name])

    origin = "measured" if options.device == "cuda" else "assumed"
    print(f"\nComputed, what feeds one GPU (steps as {origin}):\n")
    print("| model | step, ms | tokens/s | cores that read | waiting without workers ", end="")
    print("| in order | at random |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, found in models.items():
        rate = found.tokens / steps[name]
        reading_seconds = found.tokens / tokens_per_second
        waiting = reading_seconds / (reading_seconds + steps[name])
        # A token takes an int32; a sentence of either side lies in a page of its own.
        in_order, at_random = 4 * rate, 2 * SENTENCES / steps[name] * PAGE_BYTES
        print(
            f"| {name} | {steps[name] * 1e3:.1f} | {rate:,.0f} "
            f"| {rate / tokens_per_second:.2f} | {waiting:.0%} "
            f"| {in_order / 1e6:.1f} MB/s | {at_random / 1e6:.0f} MB/s |"
        )


if __name__ == "__main__":
    main()
