"""Speed and memory of the ConvGRU: against a plain loop over frames, and with checkpointing.

    python tests/benchmarks/bench_video.py [--device cuda]

Random frames: what they show changes no speed. Every ratio compares figures of this one run, taken
in turn.
"""

import argparse
import statistics
import time
import weakref
from contextlib import nullcontext
from typing import NamedTuple

import torch
from bench_translation import WARMUP_BATCHES, device_name, synchronise
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from seq2seq.nn.conv_recurrent import ConvRecurrentStack

FRAMES, LONG_FRAMES = 16, 64


class Setting(NamedTuple):
    label: str
    clips: int
    channels: int
    hidden: int
    size: int
    layers: int = 1


SETTINGS = [
    Setting("MobileNet-V2, frozen: 4 clips, 1280 x 7 x 7, hidden 64", 4, 1280, 64, 7),
    Setting("ResNet-18, frozen: 8 clips, 512 x 7 x 7, hidden 64", 8, 512, 64, 7),
    Setting("one clip at a time: 32 x 14 x 14, hidden 32", 1, 32, 32, 14),
    Setting("as many channels as the state: 8 clips, 32 x 14 x 14, hidden 32", 8, 32, 32, 14),
    Setting("the same, two layers", 8, 32, 32, 14, 2),
]


class PlainGRU(nn.Module):
    """A ConvGRU as papers write it: frame and state, side by side, are convolved at each step.

    Source: Ballas et al. 2016, arXiv:1511.06432, section 3.1.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 2 * hidden, 3, padding=1)
        self.candidate = nn.Conv2d(channels + hidden, hidden, 3, padding=1)

    def forward(self, frames: Tensor) -> Tensor:
        batch, _, _, height, width = frames.shape
        state = frames.new_zeros(batch, self.hidden, height, width)
        outputs = []
        for frame in frames.unbind(dim=1):
            gates = torch.sigmoid(self.gates(torch.cat([frame, state], dim=1)))
            reset, keep = gates.chunk(2, dim=1)
            candidate = torch.tanh(self.candidate(torch.cat([frame, reset * state], dim=1)))
            state = keep * state + (1 - keep) * candidate
            outputs.append(state)
        return torch.stack(outputs, dim=1)


class OurGRU(nn.Module):
    def __init__(self, setting: Setting, checkpoint_steps: int | None = None) -> None:
        super().__init__()
        self.stack = ConvRecurrentStack(
            "gru",
            setting.channels,
            setting.hidden,
            setting.layers,
            checkpoint_steps=checkpoint_steps,
        )

    def forward(self, frames: Tensor) -> Tensor:
        outputs, _ = self.stack(frames)
        return outputs


def plain_gru(setting: Setting) -> nn.Module:
    widths = [setting.channels, *[setting.hidden] * (setting.layers - 1)]
    return nn.Sequential(*(PlainGRU(width, setting.hidden) for width in widths))


def train(model: nn.Module, frames: Tensor, precision: torch.dtype | None) -> float:
    """Return the seconds of one forward and one backward pass."""
    synchronise(frames.device.type)
    start = time.perf_counter()
    with torch.autocast(frames.device.type, precision) if precision else nullcontext():
        outputs = model(frames)
    model.zero_grad()
    outputs.float().square().mean().backward()
    synchronise(frames.device.type)
    return time.perf_counter() - start


def compare(
    models: list[nn.Module], frames: Tensor, precision: torch.dtype | None, batches: int
) -> list[float]:
    """Return the clips per second of each model, from the median over batches taken in turn."""
    seconds = [
        [train(model, frames, precision) for model in models]
        for _ in range(batches + WARMUP_BATCHES)
    ]
    rounds = zip(*seconds[WARMUP_BATCHES:], strict=True)
    return [len(frames) / statistics.median(times) for times in rounds]


def count_flops(model: nn.Module, frames: Tensor) -> int:
    """Return the floating-point operations of the convolutions of one training step."""
    with FlopCounterMode(display=False) as counter:
        train(model, frames, None)
    return counter.get_total_flops()


class TensorMemory(TorchDispatchMode):
    """Counts the bytes of the tensors that operators return, while they live."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = operator(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in self.live:
                    weakref.finalize(storage, self.live.pop, id(storage))
                self.live[id(storage)] = storage.nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return result


def peak_megabytes(model: nn.Module, frames: Tensor) -> float:
    """Return the most memory of a training step: the GPU's own count, or that of all tensors."""
    if frames.device.type == "cuda":
        train(model, frames, None)
        torch.cuda.reset_peak_memory_stats()
        train(model, frames, None)
        return torch.cuda.max_memory_allocated() / 1e6
    with TensorMemory() as memory:
        train(model, frames, None)
    return memory.peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--batches", type=int, default=15, help="batches per training figure")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)

    print(f"{device_name(options.device)}, {options.threads} threads, torch {torch.__version__}\n")
    print(
        f"| training, clips/s of {FRAMES} frames | float32 | ratio | bf16 | ratio | GFLOP | ratio |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for setting in SETTINGS:
        shape = (setting.channels, setting.size, setting.size)
        frames = torch.randn(setting.clips, FRAMES, *shape, device=options.device)
        models = [plain_gru(setting).to(options.device), OurGRU(setting).to(options.device)]
        cells: list[list[str]] = [[], []]
        for precision in (None, torch.bfloat16):
            rates = compare(models, frames, precision, options.batches)
            for row, rate in zip(cells, rates, strict=True):
                row += [f"{rate:,.1f}", f"{rate / rates[0]:.2f}"]
        operations = [count_flops(model, frames) for model in models]
        for row, count in zip(cells, operations, strict=True):
            row += [f"{count / 1e9:,.2f}", f"{operations[0] / count:.2f}"]
        print(f"| {setting.label}: plain loop | {' | '.join(cells[0])} |")
        print(f"| `ConvRecurrentStack` | {' | '.join(cells[1])} |", flush=True)

    setting = SETTINGS[-1]
    print(
        f"\n| {setting.layers} layers, {LONG_FRAMES} frames | peak, MB | ratio | clips/s | ratio |"
    )
    print("| --- | ---: | ---: | ---: | ---: |")
    frames = torch.randn(2, LONG_FRAMES, setting.channels, setting.size, setting.size)
    frames = frames.to(options.device)
    kinds = [None, 8, 16]
    models = [OurGRU(setting, steps).to(options.device) for steps in kinds]
    rates = compare(models, frames, None, options.batches)
    peaks = [peak_megabytes(model, frames) for model in models]
    for steps, peak, rate in zip(kinds, peaks, rates, strict=True):
        label = f"`checkpoint_steps: {steps or 'null'}`"
        shares = f"{peak:,.0f} | {peak / peaks[0]:.2f} | {rate:,.1f} | {rate / rates[0]:.2f}"
        print(f"| {label} | {shares} |")


if __name__ == "__main__":
    main()
