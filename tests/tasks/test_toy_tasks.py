"""Small problems that a model of each kind has to learn; scored by decoding."""

from typing import get_args

import pytest
import torch

from seq2seq.batches import Batch, TextInput
from seq2seq.decoders.recurrent import Feed
from seq2seq.nn.recurrent import Cell
from seq2seq.search import SearchOptions
from seq2seq.sequences import EOS_ID, pad_sequences
from seq2seq.tasks.options import TeacherForcing
from seq2seq.tasks.translation import Translator

SYMBOLS = range(EOS_ID + 1, EOS_ID + 1 + 8)
GREEDY = SearchOptions(beam_size=1)


def toy_batch(size, lengths, change, generator):
    """Return random symbol sequences, and each with ``change`` done to it."""
    rows = []
    for _ in range(size):
        length = int(torch.randint(min(lengths), max(lengths) + 1, (), generator=generator))
        rows.append(
            torch.randint(SYMBOLS.start, SYMBOLS.stop, (length,), generator=generator).tolist()
        )
    sources = [[*row, EOS_ID] for row in rows]
    inputs = TextInput(pad_sequences(sources), torch.tensor([len(row) for row in sources]))
    targets = pad_sequences([[*change(row), EOS_ID] for row in rows])
    return Batch(inputs, targets, torch.arange(size))


def learn(change, *, steps, lengths=(1, 6), learning_rate=0.01, forcing_ratio=1.0, **options):
    """Train on fresh examples, and return the share of others that greedy search gets right."""
    torch.manual_seed(1)
    generator = torch.Generator().manual_seed(2)
    forcing = TeacherForcing(ratio=forcing_ratio)
    task = Translator(
        SYMBOLS.stop,
        embedding_size=16,
        hidden_size=32,
        dropout=0.0,
        tied_weights="all",
        teacher_forcing=forcing,
        **options,
    )
    optimizer = torch.optim.Adam(task.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    for _ in range(steps):
        loss = task.compute_loss(toy_batch(64, lengths, change, generator), forcing_ratio)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(task.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    unseen = toy_batch(200, lengths, change, torch.Generator().manual_seed(3))
    found = [best.tokens for best, *_ in task.eval().decode(unseen, GREEDY)]
    right = [
        row[: row.index(EOS_ID)] == tokens
        for row, tokens in zip(unseen.target.tolist(), found, strict=True)
    ]
    return sum(right) / len(right)


def copy(row):
    return row


def reverse(row):
    return row[::-1]


def test_a_short_copy_is_learned():
    assert learn(copy, steps=200) >= 0.95


def test_a_short_copy_is_learned_without_attention():
    assert learn(copy, steps=300, lengths=(1, 3), attention="none") >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("cell", get_args(Cell))
@pytest.mark.parametrize("feed", get_args(Feed))
def test_a_reversal_is_learned(cell, feed):
    assert learn(reverse, steps=500, lengths=(1, 8), cell=cell, feed=feed) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["dot", "bilinear", "additive"])
def test_a_copy_is_learned_with_any_attention(attention):
    is_wide = attention != "dot"  # dot products need a memory as wide as the state
    options = {"attention": attention, "bidirectional": is_wide}
    assert learn(copy, steps=500, lengths=(1, 8), **options) >= 0.95


@pytest.mark.slow
def test_a_copy_is_learned_from_own_samples():
    assert learn(copy, steps=500, forcing_ratio=0.7) >= 0.9


def test_dates_are_learned(trained, make_dates, make_trainer):
    [scores] = make_trainer().test(trained, make_dates(), verbose=False)
    assert scores["test/exact_match"] >= 0.7
    assert scores["test/chrf"] >= 85
