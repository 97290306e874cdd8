"""Speed of the translator: the parallel path against the step loop, and decoding.

    python tests/benchmarks/bench_translation.py --data.root MULTI30K [--device cuda]

Trains for real on Multi30k (raw text), so that decoding is measured with a model that ends its
sentences. Every ratio compares figures of this one run.
"""

import argparse
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import get_args

import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils import clip_grad_norm_

from datamodules import TranslationDataModule
from seq2seq.batches import Batch
from seq2seq.predictor import Precision, Predictor
from seq2seq.sequences import PAD_ID, shift_right
from seq2seq.tasks.options import Optimization
from seq2seq.tasks.translation import Translator

VOCAB, SIZE, SENTENCES = 8000, 256, 128
WARMUP_BATCHES = 3


def build(feed: str, tokenizers: dict) -> Translator:
    torch.manual_seed(1)
    translator = Translator(
        VOCAB,
        embedding_size=SIZE,
        hidden_size=SIZE,
        encoder_layers=1,
        decoder_layers=1,
        feed=feed,
        # No weight is tied: the matrices of the comparison are separate.
        tied_weights="none",
        optimization=Optimization(learning_rate=2e-3),
    )
    translator.tokenizers = tokenizers
    return translator


def parallel_loss(translator: Translator, batch: Batch) -> torch.Tensor:
    loss = translator.compute_loss(batch)
    return loss.total / loss.tokens


def step_loop_loss(translator: Translator, batch: Batch) -> torch.Tensor:
    """Train as step-by-step decoders do: one call of ``step`` for each position of the target."""
    decoder = translator.decoder
    memory = decoder.prepare(translator.encoder(batch.inputs))
    state = decoder.init_state(memory)
    scores = []
    for token in shift_right(batch.target).unbind(dim=1):
        output = decoder.step(token, state, memory)
        state = output.state
        scores.append(output.scores)
    return cross_entropy(
        torch.stack(scores, dim=1).flatten(0, 1),
        batch.target.flatten(),
        ignore_index=PAD_ID,
        label_smoothing=translator.label_smoothing,
    )


def train(
    translator: Translator,
    batches: Iterator[Batch],
    count: int,
    loss: Callable[[Translator, Batch], torch.Tensor],
    precision: torch.dtype | None,
) -> float:
    """Return target tokens per second over ``count`` batches."""
    device = translator.device.type
    optimizer = torch.optim.Adam(translator.parameters(), lr=2e-3, fused=True)
    translator.train()
    tokens, start = 0, 0.0
    for number, batch in enumerate(islice(batches, count + WARMUP_BATCHES)):
        if number == WARMUP_BATCHES:
            synchronise(device)
            start = time.perf_counter()
        moved = translator.transfer_batch_to_device(batch, translator.device, 0)
        with torch.autocast(device, precision) if precision else nullcontext():
            value = loss(translator, moved)
        optimizer.zero_grad()
        value.backward()
        clip_grad_norm_(translator.parameters(), 1.0)
        optimizer.step()
        if number >= WARMUP_BATCHES:
            tokens += int((batch.target != PAD_ID).sum())
    synchronise(device)
    return tokens / (time.perf_counter() - start)


def translate(predictor: Predictor, texts: list[str], beam_size: int, batch_size: int) -> float:
    """Return sentences per second, from text to text."""
    options = replace(predictor.task.decoding, beam_size=beam_size)
    predictor.predict_chunk(texts[:batch_size], options, batch_size)
    start = time.perf_counter()
    predictor.predict_chunk(texts, options, batch_size)
    synchronise(predictor.task.device.type)
    return len(texts) / (time.perf_counter() - start)


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.root", dest="root", required=True, help="folder of Multi30k")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--batches", type=int, default=40, help="batches per training figure")
    parser.add_argument("--epochs", type=int, default=4, help="training before decoding")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    data = TranslationDataModule(
        options.root,
        test="test_2016_flickr",
        vocab_size=VOCAB,
        batch_size=SENTENCES,
        batch_tokens=10**6,
    )
    data.prepare_data()
    data.setup("fit")
    loader = data.train_dataloader()
    batches = list(loader)

    print(f"{device_name(options.device)}, {options.threads} threads, torch {torch.__version__}")
    print(f"padding in length-sorted batches: {loader.batch_sampler.padding_share:.1%}\n")
    print("| training, target tokens/s | float32 | ratio | bf16 | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    baselines: dict[torch.dtype | None, float] = {}
    for label, feed, loss in [
        ("`feed: input`, one `step()` per position", "input", step_loop_loss),
        ("`feed: input`, output layer once", "input", parallel_loss),
        ("`feed: output`, parallel", "output", parallel_loss),
    ]:
        cells = []
        for precision in (None, torch.bfloat16):
            translator = build(feed, data.tokenizers).to(options.device)
            rate = train(translator, cycle(batches), options.batches, loss, precision)
            baseline = baselines.setdefault(precision, rate)
            cells += [f"{rate:,.0f}", f"{rate / baseline:.2f}"]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)

    # Trained in bf16, to have it done sooner.
    translator = build("output", data.tokenizers).to(options.device)
    steps = options.epochs * len(batches) - WARMUP_BATCHES
    train(translator, cycle(batches), steps, parallel_loss, torch.bfloat16)
    texts = [pair.source for pair in data.pairs("test")]
    print(f"\n| decoding {len(texts)} sentences, sentences/s | float32 | ratio | bf16 | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rates: dict[Precision, float] = {}
    for label, beam_size, batch_size in [
        ("beam 5, one at a time", 5, 1),
        ("beam 5, batches of 128", 5, 128),
        ("greedy, batches of 256", 1, 256),
    ]:
        some = texts[:100] if batch_size == 1 else texts
        cells = []
        for mode in get_args(Precision):
            predictor = Predictor(translator, options.device, mode)
            rate = translate(predictor, some, beam_size, batch_size)
            baseline = rates.setdefault(mode, rate)
            cells += [f"{rate:,.0f}", f"{rate / baseline:.2f}"]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def device_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
