"""``seq2seq-gradients``: how far back in a text the gradients of a recipe's model reach."""

import pkgutil
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from torch import Tensor

from datamodules.base import SequenceDataModule
from seq2seq.batches import Batch
from seq2seq.errors import ConfigError, DataError
from seq2seq.gradient_figures import gradient_figure, reach
from seq2seq.nn.recurrent import Cell
from seq2seq.recipe_command import build_data, build_model, recipe_parser, run_command
from seq2seq.sequences import lengths_to_mask
from seq2seq.tasks.text_source import TextSourceTask

_NAME = "seq2seq-gradients"
_LARGEST_GRADIENT = 1.0  # norm to which those of training are clipped, as most recipes do


def build_parser() -> LightningArgumentParser:
    """Return the parser of ``seq2seq-gradients``."""
    parser = recipe_parser(
        _NAME,
        "Build the text model of a recipe with each of some cells, compute the gradient of the "
        "loss of one training batch by the embedded token at every time step, and draw its norm. "
        "It falls with the distance from the end where the loss hears of a token through the "
        "recurrence alone. A second direction, an attention and pooling other than last are short "
        "cuts: add --model.bidirectional false, --model.attention none or --model.pooling last to "
        "see it without.",
        "Recipe as for seq2seq, with a model that reads text.",
        with_model=True,
    )
    parser.add_argument("--output", type=str, default="gradients.png", help="Picture to write.")
    parser.add_argument(
        "--cells", type=Cell, nargs="+", default=[*get_args(Cell)], help="Cells to compare."
    )
    parser.add_argument(
        "--train_steps",
        type=int,
        default=0,
        help=(
            "Steps of Adam before, at the recipe's learning rate and on its batches: gates that "
            "have learned keep other gradients than fresh ones."
        ),
    )
    parser.add_argument("--seed", type=int, default=1, help="Seed of the weights.")
    return parser


def run(arguments: Sequence[str] | None = None) -> dict[str, Tensor]:
    """Carry out ``seq2seq-gradients``.

    Args:
        arguments: As on the command line; ``sys.argv`` when None.

    Returns:
        For each cell the norms 0, 1, ... steps before the end, float64 ``(time,)``.

    Raises:
        ArgumentError: If an option is unknown or has no such value.
        ConfigError: If options do not fit together, or the recipe's model reads no text.
        DataError: If the data cannot be used, or the picture not be written.
    """
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.data is None or options.model is None:
        raise ConfigError("There is nothing to measure: give a --config with a model and data.")
    task_class = pkgutil.resolve_name(options.model.class_path)
    if not issubclass(task_class, TextSourceTask):
        raise ConfigError(
            f"The recipe's model is a {task_class.__name__}, and gradients are measured along "
            "text. Give a --config with a TextClassifier or a Translator."
        )
    if options.train_steps < 0:
        raise ConfigError(f"--train_steps={options.train_steps} must not be negative.")
    data = build_data(parser, options)
    data.prepare_data()
    data.setup("fit")
    norms = {}
    for cell in dict.fromkeys(options.cells):
        torch.manual_seed(options.seed)
        task = _build(parser, options, cell)
        batches = _endless(data)
        _train(task, islice(batches, options.train_steps))
        norms[cell] = by_distance(*gradient_norms(task, next(batches)))
        sys.stdout.write(f"{cell}: first / last {reach(norms[cell]):.3g}\n")
    title = f"{task_class.__name__}, {_state(options.train_steps)}"
    _write(Path(options.output), norms, title)
    return norms


def _state(train_steps: int) -> str:
    return f"after {train_steps} steps of training" if train_steps else "before training"


def _build(parser: LightningArgumentParser, options: Namespace, cell: str) -> TextSourceTask:
    """Return the recipe's model with another cell."""
    options = options.clone()
    options.model.init_args.cell = cell
    task: TextSourceTask = build_model(parser, options)
    return task


def _endless(data: SequenceDataModule) -> Iterator[Batch]:
    """Yield training batches, epoch after epoch; the same ones at every call."""
    loader: Any = data.train_dataloader()
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def _train(task: TextSourceTask, batches: Iterator[Batch]) -> None:
    optimizer = torch.optim.Adam(task.parameters(), lr=task.optimization.learning_rate)
    for batch in batches:
        loss = task.compute_loss(batch)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()  # type: ignore[no-untyped-call]  # torch gives none
        torch.nn.utils.clip_grad_norm_(task.parameters(), _LARGEST_GRADIENT)
        optimizer.step()


def gradient_norms(task: TextSourceTask, batch: Batch) -> tuple[Tensor, Tensor]:
    """Return how much each token of a batch moves the loss of its row.

    Args:
        task: The model; left in evaluation mode and in float64, where nothing underflows.
        batch: Inputs and targets.

    Returns:
        Norms of the gradient by the embedded tokens, float64 ``(batch, source)``, and the number
        of real tokens of each row, int64 ``(batch,)``.
    """
    assert batch.target is not None
    task.double().eval()
    embedded = task.encoder.embedding(batch.inputs.tokens).detach().requires_grad_()
    memory = task.encoder.encode(embedded, batch.inputs.lengths)
    output = task.follow_memory(batch.target, memory, forcing_ratio=1.0, batch_number=0)
    loss = task.score_target(batch.target, output)
    [gradient] = torch.autograd.grad(loss.total, embedded)
    return gradient.norm(dim=2), batch.inputs.lengths


def by_distance(norms: Tensor, lengths: Tensor) -> Tensor:
    """Return the mean norm 0, 1, ... steps before the end, as far as half of the rows reach.

    Args:
        norms: ``(batch, source)``.
        lengths: Number of real tokens, int64 ``(batch,)``.

    Returns:
        ``(time,)``; each mean is over the rows that are long enough.
    """
    size = int(lengths.median())
    distances = torch.arange(size)
    places = (lengths.unsqueeze(1) - 1 - distances).clamp(min=0)  # (batch, time)
    is_real = lengths_to_mask(lengths, norms.shape[1])[:, :size]
    found = norms.gather(1, places).where(is_real, 0)
    return found.sum(dim=0) / is_real.sum(dim=0)


def _write(path: Path, norms: dict[str, Tensor], title: str) -> None:
    try:
        gradient_figure(norms, title).savefig(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: the picture cannot be written: {error}. Give another --output, such as "
            "gradients.png."
        ) from error
    sys.stdout.write(f"{path} shows the norms.\n")


def main() -> None:
    """Run ``seq2seq-gradients``: status 1 where data cannot be used, 2 where options cannot."""
    run_command(_NAME, run)


if __name__ == "__main__":
    main()
