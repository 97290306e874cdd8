"""Optimisers by name, and learning rates checked against values computed by hand."""

import math
import re
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.optim import LBFGS, SGD, Adam, AdamW
from torch.optim.lr_scheduler import LambdaLR, LinearLR, ReduceLROnPlateau
from torch.utils.data import DataLoader

from seq2seq.errors import ConfigError
from seq2seq.optim import LBFGSOptions, ParameterGroup, build_optimizer, trainer_problems
from seq2seq.schedules import build_schedules


def sgd(learning_rate: float = 0.8) -> torch.optim.Optimizer:
    return build_optimizer(nn.Linear(3, 2), "sgd", learning_rate=learning_rate)


def rate(optimizer: torch.optim.Optimizer) -> float:
    rates = {group["lr"] for group in optimizer.param_groups}
    assert len(rates) == 1
    return float(rates.pop())


def rates(name: Any, steps: int, **options: Any) -> list[float]:
    """Return the learning rate that each of the first steps uses."""
    optimizer = sgd()
    schedules = build_schedules(optimizer, name, **options)
    used = []
    for _ in range(steps):
        used.append(rate(optimizer))
        optimizer.step()
        for schedule in schedules:
            if schedule["interval"] == "step":
                schedule["scheduler"].step()
    return used


@pytest.mark.parametrize(("name", "kind"), [("adam", Adam), ("adamw", AdamW), ("sgd", SGD)])
def test_a_name_gives_its_optimizer(name: Any, kind: type) -> None:
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, name, learning_rate=0.1)
    assert type(optimizer) is kind
    before = layer.weight.detach().clone()
    layer(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    assert (layer.weight < before).all()


def test_the_options_reach_their_optimizer() -> None:
    options: dict[str, Any] = {"learning_rate": 0.1, "betas": (0.8, 0.95), "momentum": 0.7}
    adam = build_optimizer(nn.Linear(3, 2), "adamw", **options)
    assert (adam.defaults["betas"], adam.defaults["fused"]) == ((0.8, 0.95), True)
    assert build_optimizer(nn.Linear(3, 2), "sgd", **options).defaults["momentum"] == 0.7


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.recurrent = nn.GRU(4, 4, num_layers=2)
        self.norm = nn.LayerNorm(4)
        self.frozen = nn.Linear(5, 3).requires_grad_(False)
        self.output = nn.Linear(4, 7)
        self.output.weight = self.embedding.weight


def test_weight_decay_spares_biases_norms_and_embeddings() -> None:
    model = Tied()
    groups = build_optimizer(model, "adamw", learning_rate=0.1, weight_decay=0.02).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_decay = {group["weight_decay"]: {names[p] for p in group["params"]} for group in groups}
    matrices = {f"recurrent.weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in (0, 1)}
    assert by_decay[0.02] == matrices
    assert by_decay[0.0] == set(names.values()) - matrices - {"frozen.weight", "frozen.bias"}


def test_weight_decay_of_adamw_shrinks_a_matrix_by_itself() -> None:
    layer = nn.Linear(3, 2)
    before = layer.weight.detach().clone()
    optimizer = build_optimizer(layer, "adamw", learning_rate=0.1, weight_decay=0.5)
    layer.weight.grad = torch.zeros_like(layer.weight)
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before * (1 - 0.1 * 0.5))


def test_all_problems_of_an_optimizer_are_told_together() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)optimizer='adm'.*learning_rate=0.*weight_decay=-1.*beta2=1"
    ):
        build_optimizer(
            nn.Linear(3, 2),
            "adm",  # type: ignore[arg-type]
            learning_rate=0,
            weight_decay=-1,
            betas=(0.9, 1),
        )


@pytest.mark.parametrize("line_search", ["strong_wolfe", "none"])
def test_lbfgs_finds_least_squares_in_one_step(line_search: Any) -> None:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(40, 3, generator=generator, dtype=torch.float64)
    layer = nn.Linear(3, 2, bias=False).double()
    wanted = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    options = LBFGSOptions(max_iterations=60, history_size=9, line_search=line_search)
    optimizer = build_optimizer(layer, "lbfgs", learning_rate=0.7, lbfgs=options)
    assert isinstance(optimizer, LBFGS)
    assert optimizer.defaults["history_size"] == 9
    [group] = optimizer.param_groups
    assert group["params"] == [layer.weight]

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = (layer(inputs) - inputs @ wanted.T).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    torch.testing.assert_close(layer.weight.detach(), wanted)


def test_what_lbfgs_has_no_place_for_is_refused_together() -> None:
    layer = nn.Linear(3, 2)
    options: dict[str, Any] = {"max_iterations": 0, "history_size": -1, "line_search": "wolf"}
    with pytest.raises(
        ConfigError,
        match=r"(?s)weight_decay=0\.1 is not for lbfgs.*max_iterations=0.*history_size=-1"
        r".*line_search='wolf'.*a learning rate of their own",
    ):
        build_optimizer(
            layer,
            "lbfgs",
            learning_rate=1.0,
            weight_decay=0.1,
            lbfgs=LBFGSOptions(**options),
            groups=[ParameterGroup([layer.weight], 0.1)],
        )


EXACT: dict[str, Any] = {
    "devices": 1,
    "precision": "64-true",
    "accumulated_batches": 1,
    "clips_gradients": False,
    "batches_per_epoch": 1,
}


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("devices", 2, "in one process, and there are 2: .* Set --trainer.devices 1"),
        ("precision", "16-mixed", "--trainer.precision 16-mixed rounds too much.* 64-true"),
        ("accumulated_batches", 3, "gradients of 3. Set --trainer.accumulate_grad_batches 1"),
        ("clips_gradients", True, "Leave out --trainer.gradient_clip_val"),
        ("batches_per_epoch", 4, "in one batch, and there are 4.* Raise --data.batch_size"),
    ],
)
def test_lbfgs_names_what_the_trainer_must_not_do(option: str, value: Any, message: str) -> None:
    assert trainer_problems("lbfgs", **EXACT) == []
    [problem] = trainer_problems("lbfgs", **{**EXACT, option: value})
    assert re.search(message, problem)
    assert trainer_problems("adam", **{**EXACT, option: value}) == []


def test_constant_rises_and_stays() -> None:
    assert rates("constant", 6, warmup_steps=4) == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    assert rates("constant", 2) == [0.8, 0.8]


def test_cosine_falls_to_its_share_of_the_rate() -> None:
    # Two steps of warm-up, then 4 steps from 0.8 to 0.2: 0.2 + 0.6 * (1 + cos(pi * k / 4)) / 2.
    expected = [0.4, 0.8, 0.8, 0.5 + 0.3 / math.sqrt(2), 0.5, 0.5 - 0.3 / math.sqrt(2), 0.2, 0.2]
    used = rates("cosine", 8, warmup_steps=2, total_steps=6, min_ratio=0.25)
    assert used == pytest.approx(expected)
    assert rates("cosine", 3, total_steps=2) == pytest.approx([0.8, 0.4, 0.0])


def test_inverse_sqrt_is_the_formula_of_the_paper() -> None:
    # min(step ** -0.5, step * warmup ** -1.5) times 0.8 * warmup ** 0.5, steps from 1.
    expected = [0.2, 0.4, 0.6, 0.8] + [0.8 * math.sqrt(4 / step) for step in (5, 6, 7)]
    assert rates("inverse_sqrt", 7, warmup_steps=4) == pytest.approx(expected)
    assert rates("inverse_sqrt", 4) == pytest.approx([0.8 / math.sqrt(k) for k in (1, 2, 3, 4)])


def test_plateau_warms_up_like_the_others() -> None:
    expected = rates("constant", 7, warmup_steps=5)
    assert rates("plateau", 7, warmup_steps=5) == pytest.approx(expected)


def validate(
    optimizer: torch.optim.Optimizer, schedules: Sequence[Any], values: list[float]
) -> list[float]:
    """Return the learning rate after each validation, with two training steps before each."""
    after = []
    for value in values:
        for _ in range(2):
            optimizer.step()
            for schedule in schedules[1:]:
                schedule["scheduler"].step()
        schedules[0]["scheduler"].step(value)
        after.append(rate(optimizer))
    return after


def test_plateau_lowers_the_rate_after_its_patience_down_to_the_minimum() -> None:
    optimizer = sgd()
    schedules = build_schedules(
        optimizer, "plateau", mode="max", patience=1, reduction=0.5, min_ratio=0.3
    )
    after = validate(optimizer, schedules, [10, 12, 11, 12, 13, 9, 9, 8, 8])
    assert after == pytest.approx([0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.24, 0.24, 0.24])


def test_warm_up_keeps_what_the_plateau_took_off() -> None:
    optimizer = sgd()
    schedules = build_schedules(optimizer, "plateau", warmup_steps=8, patience=0, reduction=0.5)
    # Shares of the warm-up after 2, 4, 6, 8, 10 steps: 3/8, 5/8, 7/8, 1, 1; halved from the second.
    after = validate(optimizer, schedules, [5, 6, 4, 3, 3])
    assert after == pytest.approx([0.3, 0.25, 0.35, 0.4, 0.2])


def test_schedules_come_in_the_form_that_lightning_wants() -> None:
    (constant,) = build_schedules(sgd(), "constant", warmup_steps=3)
    assert isinstance(constant["scheduler"], LambdaLR)
    assert constant["interval"] == "step"
    plateau, warmup = build_schedules(
        sgd(), "plateau", warmup_steps=3, monitor="val_bleu", mode="max", epochs_per_validation=2
    )
    assert isinstance(plateau["scheduler"], ReduceLROnPlateau)
    assert (plateau["monitor"], plateau["interval"], plateau["frequency"]) == (
        "val_bleu",
        "epoch",
        2,
    )
    assert isinstance(warmup["scheduler"], LinearLR)
    assert warmup["interval"] == "step"


def test_a_cosine_without_end_says_what_to_set() -> None:
    with pytest.raises(ConfigError, match=r"set --trainer\.max_steps or --trainer\.max_epochs"):
        build_schedules(sgd(), "cosine", total_steps=math.inf)


def test_a_warm_up_longer_than_the_training_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"9 steps, of which .*warmup_steps=9 leaves none"):
        build_schedules(sgd(), "cosine", warmup_steps=9, total_steps=9)


def test_all_problems_of_a_schedule_are_told_together() -> None:
    with pytest.raises(
        ConfigError, match=r"(?s)'step'.*warmup_steps=-1.*minimum_ratio=2.*reduction=1"
    ):
        build_schedules(sgd(), "step", warmup_steps=-1, min_ratio=2, reduction=1)  # type: ignore[arg-type]


class Regression(pl.LightningModule):
    """Learns one line; validates with the values it is given, one per epoch."""

    def __init__(self, optimizer: Any, schedule: Any, monitored: Sequence[float], **options: Any):
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.names = (optimizer, schedule)
        self.monitored = monitored
        self.options = options
        self.rates: list[float] = []

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return self.layer(batch).square().mean()  # type: ignore[no-any-return]

    def validation_step(self, _: torch.Tensor) -> None:
        self.log("val_score", self.monitored[self.current_epoch], batch_size=5)

    def configure_optimizers(self) -> Any:
        optimizer = build_optimizer(self, self.names[0], learning_rate=0.8)
        total_steps = self.trainer.estimated_stepping_batches
        options = {"monitor": "val_score", "total_steps": total_steps, **self.options}
        return [optimizer], build_schedules(optimizer, self.names[1], **options)


def fit(module: Regression, **trainer_options: Any) -> list[float]:
    data: Any = torch.randn(15, 3, generator=torch.Generator().manual_seed(0))
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu",
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **silent,  # type: ignore[arg-type]
        **trainer_options,
    )
    trainer.fit(module, DataLoader(data, batch_size=5), DataLoader(data, batch_size=15))
    return module.rates


def test_lightning_runs_plateau_with_warm_up() -> None:
    module = Regression("sgd", "plateau", [3, 4, 5], warmup_steps=4, patience=0)
    used = fit(module, max_epochs=3)
    assert used == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4])


def test_lightning_counts_epochs_of_plateau_by_their_validation() -> None:
    module = Regression("sgd", "plateau", [0, 3, 0, 4, 0], patience=0, epochs_per_validation=2)
    used = fit(module, max_epochs=5, check_val_every_n_epoch=2)
    assert used == pytest.approx([0.8] * 12 + [0.4] * 3)


def test_lightning_steps_once_per_step_of_the_optimizer() -> None:
    module = Regression("adam", "cosine", [0, 0])
    used = fit(module, max_epochs=2, accumulate_grad_batches=3)
    assert used == pytest.approx([0.8] * 3 + [0.4] * 3)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_gradients_are_clipped_under_mixed_precision(name: str) -> None:
    used = fit(
        Regression(name, "constant", [0]),
        max_epochs=1,
        precision="bf16-mixed",
        gradient_clip_val=0.1,
    )
    assert len(used) == 3
