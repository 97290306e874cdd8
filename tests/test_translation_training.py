import json
import warnings
from itertools import chain

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from toy_translation import module, prepared, write_splits


@pytest.fixture
def root(tmp_path):
    return write_splits(tmp_path / "corpus")


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = []

    def training_step(self, batch):
        self.seen.append((self.current_epoch, batch.inputs.tokens.tolist()))
        return self.weight.sum()

    def validation_step(self, batch):
        pass

    def predict_step(self, batch):
        return batch.indices.tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning_predicts_every_sentence_in_order(root):
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    data = module(root, predict="test", eval_batch_size=3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        assert trainer.predict(Recorder(), datamodule=data) == [[0, 1, 2], [3, 4, 5], [6]]


def fit(root, folder, max_steps, num_workers=0, resume=None, saving=None, limit=1.0):
    model = Recorder()
    saving = saving or {"every_n_train_steps": 1}
    checkpoint = ModelCheckpoint(folder, filename="{step}", save_top_k=-1, **saving)
    trainer = Trainer(
        max_steps=max_steps,
        limit_train_batches=limit,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[checkpoint],
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        warnings.filterwarnings("ignore", ".*exists and is not empty.*")
        data = module(root, num_workers=num_workers, sampling_alpha=0.2)
        trainer.fit(model, datamodule=data, ckpt_path=resume, weights_only=True)
    return model.seen


@pytest.mark.parametrize("num_workers", [0, 2])
def test_resumed_training_sees_what_an_uninterrupted_run_sees(root, tmp_path, num_workers):
    per_epoch = len(prepared(root).train_dataloader())
    whole = fit(root, tmp_path / "whole", 2 * per_epoch + 3, num_workers)
    assert [epoch for epoch, _ in whole] == [0] * per_epoch + [1] * per_epoch + [2] * 3
    assert len({str(tokens) for _, tokens in whole}) == len(whole)  # each epoch differs
    # In the middle of an epoch, and at its end, where Lightning goes on with the old iterator.
    for stop in {0: (3, per_epoch, per_epoch + 2), 2: (per_epoch + 2,)}[num_workers]:
        folder = tmp_path / f"part{stop}"
        assert fit(root, folder, stop, num_workers) == whole[:stop]
        checkpoint = folder / f"step={stop}.ckpt"
        assert fit(root, folder, len(whole), num_workers, checkpoint) == whole[stop:]


@pytest.mark.parametrize("is_saved_after_validation", [True, False])
@pytest.mark.parametrize("limit", [1.0, 5])
def test_checkpoints_of_whole_epochs_resume_with_the_next(
    root, tmp_path, is_saved_after_validation, limit
):
    saving = {"every_n_epochs": 1, "save_on_train_epoch_end": not is_saved_after_validation}
    per_epoch = len(prepared(root).train_dataloader()) if limit == 1.0 else limit
    whole = fit(root, tmp_path, 2 * per_epoch + 2, saving=saving, limit=limit)
    checkpoint = tmp_path / f"step={per_epoch}.ckpt"
    resumed = fit(root, tmp_path, len(whole), resume=checkpoint, saving=saving, limit=limit)
    assert resumed == whole[per_epoch:]


class RankRecorder(Recorder):
    """Leaves what each rank saw in a file."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder
        self.indices = {"train": [], "val": []}

    def training_step(self, batch):
        self.indices["train"].append(batch.indices.tolist())
        return self.weight.sum()

    def validation_step(self, batch):
        self.indices["val"].append(batch.indices.tolist())

    def on_fit_end(self):
        (self.folder / f"{self.global_rank}.json").write_text(json.dumps(self.indices))


@pytest.mark.slow
def test_two_processes_share_the_batches(root, tmp_path):
    trainer = Trainer(
        max_epochs=1,
        num_sanity_val_steps=0,
        accelerator="cpu",
        devices=2,
        strategy="ddp_spawn",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(RankRecorder(tmp_path), datamodule=module(root))
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    for split, count in (("train", 90), ("val", 11)):
        assert len(first[split]) == len(second[split]) >= 1
        assert sorted(chain(*first[split], *second[split])) == list(range(count))
