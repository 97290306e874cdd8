import json
import sys
from datetime import date, timedelta
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.synthetic import generate_dates
from seq2seq.cli import build_cli

CONFIGS = Path(__file__).parents[1] / "configs"
# What only says where to run is no recipe.
RECIPES = sorted(
    path for path in CONFIGS.rglob("*.yaml") if path.parent.name not in ("cluster", "trainer")
)
NAMES = [str(path.relative_to(CONFIGS)) for path in RECIPES]
TWO_STEPS = [
    *("--trainer.max_steps", "2", "--trainer.limit_val_batches", "1"),
    *("--trainer.num_sanity_val_steps", "0", "--trainer.accelerator", "cpu"),
    *("--trainer.enable_progress_bar", "false", "--trainer.enable_model_summary", "false"),
    *("--trainer.val_check_interval", "2", "--model.optimization.warmup_steps", "1"),
]


def corpus(folder):
    """Write every split in every language, whichever a recipe asks for."""
    pairs = generate_dates(400, seed=1)
    for split, language in product(("train", "val", "test_2016_flickr"), ("en", "de")):
        lines = (written if language == "en" else iso for written, iso in pairs)
        (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in lines))
    return folder


def pictures(folder):
    """Write a few pictures with captions of seven words, in every split."""
    rows = ["image,caption,split"]
    for number, split in enumerate(["train"] * 6 + ["val", "test"]):
        Image.new("RGB", (40, 30), (40 * number % 256, 90, 120)).save(folder / f"{number}.png")
        rows += [f"{number}.png,a dog runs {place},{split}" for place in ("on sand", "in snow")]
    (folder / "captions.csv").write_text("\n".join(rows))
    return folder


def videos(folder):
    """Write a few videos of two people, with two labels."""
    rows = ["path,label,group,split"]
    for number, group in enumerate(["s1"] * 6 + ["s7"] * 2):
        np.save(folder / f"{number}.npy", np.full((5, 8, 9), 30 * number, dtype=np.uint8))
        rows.append(f"{number}.npy,{('sit', 'stand')[number % 2]},{group},train")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder


def reviews(folder):
    """Write a few reviews with two labels, a word each more than the one before."""
    for split, count in (("train", 40), ("test", 4)):
        rows = [
            {"text": "a film " * (n + 1) + "goodbye"[: 4 + n % 2 * 3], "label": n % 2}
            for n in range(count)
        ]
        lines = "".join(f"{json.dumps(row)}\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(lines)
    return folder


def weeks(folder):
    """Write a series of fifteen years of weeks."""
    start = date(1990, 1, 1)
    rows = [f"{start + timedelta(weeks=week)},{300 + week % 52}" for week in range(15 * 52)]
    (folder / "weeks.csv").write_text("\n".join(["date,co2", *rows]))
    return folder / "weeks.csv"


def data_options(name, folder):
    if name.startswith(("captioning/flickr8k", "captioning/own")):
        files = {"captions": pictures(folder) / "captions.csv", "images": folder}
        words = ["--data.minimum_count", "1", "--data.vocab_size", "11"]
        return [
            *(option for key, path in files.items() for option in (f"--data.{key}", str(path))),
            *(words if "flickr8k" in name else ["--data.vocab_size", "16"]),
            *("--data.batch_size", "3"),
            *("--model.backbone_weights", "null", "--model.init_from", "null"),
        ]
    if name.startswith("captioning/shapes"):
        counts = {"train_count": 60, "val_count": 2, "test_count": 2, "batch_size": 4}
        return [
            *("--data.root", str(folder)),
            *(option for key, count in counts.items() for option in (f"--data.{key}", str(count))),
        ]
    if name.startswith(("video/utd_mhad", "video/own")):
        return [
            *("--data.source", str(videos(folder) / "clips.csv")),
            *("--data.num_classes", "2", "--data.batch_size", "3"),
            *("--data.val_share", "0", "--data.val_groups", "[s7]"),
            *("--model.backbone_weights", "null"),
        ]
    if name.startswith("text_classification/"):
        return [
            *("--data.source", str(reviews(folder))),
            *("--data.vocab_size", "8", "--data.batch_size", "3"),
        ]
    if name == "forecasting/sine.yaml":
        return [
            *("--data.length", "40", "--data.horizon", "10"),
            *("--trainer.val_check_interval", "1"),  # an epoch is one step
        ]
    if name.startswith("forecasting/"):
        return ["--data.source", str(weeks(folder))]
    if name.startswith("translation/"):
        return ["--data.root", str(corpus(folder)), "--data.vocab_size", "80"]
    return ["--data.root", str(folder), "--data.train_count", "300"]


@pytest.mark.filterwarnings("ignore:.*(exists and is not empty|logging interval)")
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_two_steps_and_writes_into_its_own_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data"
    data.mkdir()
    path = CONFIGS / name
    command = ["seq2seq", "fit", "--config", str(path), *TWO_STEPS, *data_options(name, data)]
    monkeypatch.setattr(sys, "argv", command)
    cli = build_cli()
    assert cli.trainer.global_step == 2
    folder = tmp_path / "runs" / path.stem
    assert (folder / "last.ckpt").is_file()
    assert (folder / "config.yaml").is_file()


def test_no_two_recipes_share_a_folder():
    assert len({path.stem for path in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipe_names_its_command(path):
    relative = path.relative_to(CONFIGS.parent)
    assert f"seq2seq fit --config {relative}" in path.read_text(encoding="utf-8")
