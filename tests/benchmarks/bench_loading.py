"""Share of time that training waits for data, and how evenly processes share the work.

    python tests/benchmarks/bench_loading.py --data.root MULTI30K [--steps 20] [--device cuda]

Recipes as they stand, for a few steps; the first half of them is not counted.
"""

import argparse
import logging
import tempfile
import warnings
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from bench_translation import device_name

from datamodules.samplers import BucketBatchSampler
from seq2seq.callbacks import Throughput
from seq2seq.cli import SequenceCLI, build_cli

CONFIGS = Path(__file__).parents[2] / "configs"
FEW = ("--data.train_count", "1000", "--data.val_count", "10", "--data.test_count", "10")
RECIPES = {
    "translation, Multi30k": ("translation/multi30k_en_de.yaml",),
    "captioning, shapes": ("captioning/shapes.yaml", *FEW),
    "video, motion": ("video/motion.yaml", *FEW),
}


def build(options: argparse.Namespace, run_dir: str, recipe: str, *more: str) -> SequenceCLI:
    """Return model and data of a recipe."""
    root = ("--data.root", options.root) if recipe.startswith("translation") else ()
    arguments = ["--config", str(CONFIGS / recipe), *root, *more, "--run_dir", run_dir]
    arguments += ["--model.optimization.warmup_steps", "1"]  # or none of the steps would be left
    return build_cli([*arguments, "--trainer.accelerator", options.accelerator], run=False)


def train(cli: SequenceCLI, options: argparse.Namespace, run_dir: str) -> dict[str, float]:
    """Train for some steps and return what was logged of the second half."""
    trainer = pl.Trainer(
        default_root_dir=run_dir,
        accelerator=options.accelerator,
        devices=1,
        precision=cli.config.trainer.precision,
        gradient_clip_val=cli.config.trainer.gradient_clip_val,
        max_epochs=-1,
        max_steps=2 * options.steps,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Throughput(options.steps)],
    )
    trainer.fit(cli.model, cli.datamodule)
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def dealt_whole(sampler: BucketBatchSampler, world_size: int) -> float:
    """Return the imbalance of ranks that take whole batches of one process in turn."""
    padded = np.array([len(batch) * sampler._lengths[batch].max() for batch in sampler])
    steps = padded[: len(padded) // world_size * world_size].reshape(-1, world_size)
    return float(steps.max(axis=1).sum() / steps.mean(axis=1).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data.root", dest="root", required=True, help="folder of Multi30k")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--steps", type=int, default=20, help="steps that are counted")
    options = parser.parse_args()
    options.accelerator = options.device.replace("cuda", "gpu")
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")  # Lightning's advice on workers
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)

    print(f"{device_name(options.device)}, {options.threads} threads, torch {torch.__version__}\n")
    print(f"| waiting for data, {options.steps} steps | no worker | 2 workers |")
    print("| --- | ---: | ---: |")
    with tempfile.TemporaryDirectory() as run_dir:
        for label, recipe in RECIPES.items():
            cells = []
            for workers in ("0", "2"):
                cli = build(options, run_dir, *recipe, "--data.num_workers", workers)
                share = train(cli, options, run_dir)["train/data_wait_share"]
                cells.append(f"{share:.1%}")
            print(f"| {label} | {' | '.join(cells)} |", flush=True)

        data = build(options, run_dir, *RECIPES["translation, Multi30k"]).datamodule
        data.prepare_data()
        data.setup("fit")
        alone = data.train_dataloader().batch_sampler
        print(
            "\n| Multi30k: largest of the ranks' padded tokens by their mean | rows dealt out "
            "| whole batches in turn |"
        )
        print("| --- | ---: | ---: |")
        for world_size in (2, 8, 64):
            dealt = BucketBatchSampler(
                alone._lengths, data.batch_tokens, data.batch_size, rank=0, world_size=world_size
            )
            whole = dealt_whole(alone, world_size)
            print(f"| {world_size} processes | {dealt.imbalance:.3f} | {whole:.3f} |")


if __name__ == "__main__":
    main()
