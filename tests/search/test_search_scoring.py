"""The search's own arithmetic against the plain way to do it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_models import HistoryState, random_model

from seq2seq.search.beam import beam_search
from seq2seq.search.contract import Request
from seq2seq.search.greedy import greedy_search
from seq2seq.search.options import SearchOptions
from seq2seq.search.scoring import best_continuations, log_normaliser


@settings(max_examples=60)
@given(
    sentences=st.integers(1, 3),
    beams=st.integers(1, 4),
    vocab=st.sampled_from([1, 5, 63, 64, 65, 128, 333]),
    count=st.integers(1, 12),
    levels=st.sampled_from([1, 2, 5, 10_000]),
    seed=st.integers(0, 99),
)
def test_best_continuations_are_those_of_a_stable_sort(
    sentences: int, beams: int, vocab: int, count: int, levels: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (sentences * beams, vocab)
    # Few levels make ties, on both sides of zero; one in five is banned.
    scores = torch.randint(-levels, levels, shape, generator=generator) / 4.0
    scores[torch.rand(shape, generator=generator) < 0.2] = -torch.inf
    offsets = torch.randint(-3, 1, (sentences, beams), generator=generator).float()
    found = best_continuations(scores, offsets, count)
    totals = (scores.view(sentences, beams, vocab) + offsets.unsqueeze(-1)).flatten(1)
    expected = totals.sort(dim=1, descending=True, stable=True)
    assert found.totals.shape == (sentences, count)
    kept = min(count, beams * vocab)
    assert found.totals[:, :kept].equal(expected.values[:, :kept])
    assert (found.totals[:, kept:] == -torch.inf).all()
    is_possible = found.totals > -torch.inf
    places = found.beams * vocab + found.tokens
    wanted = torch.zeros_like(places)
    wanted[:, :kept] = expected.indices[:, :kept]
    assert places[is_possible].equal(wanted[is_possible])


def test_normaliser_is_the_log_of_the_sum() -> None:
    torch.manual_seed(0)
    scores = torch.randn(5, 301) * 9
    scores[2, ::2] = -torch.inf
    torch.testing.assert_close(log_normaliser(scores), scores.logsumexp(dim=-1))


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_greedy_is_a_beam_of_one(exponent: float) -> None:
    model = random_model(vocab=70, end=2.5)
    numbers = torch.arange(9)
    request = Request(
        step=model,
        state=HistoryState(torch.empty(9, 0, dtype=torch.int64), numbers, numbers),
        options=SearchOptions(beam_size=1, length_penalty=exponent),
        bos_id=2,
        eos_id=3,
        limits=numbers + 2,
        prefixes=[[5] * (number % 3) for number in range(9)],
        indices=numbers,
    )
    greedy, beam = greedy_search(request), beam_search(request)
    assert [[item.tokens for item in items] for items in greedy] == [
        [item.tokens for item in items] for items in beam
    ]
    assert {item.is_finished for items in greedy for item in items} == {True, False}
    for one, other in zip(greedy, beam, strict=True):
        assert one[0].score == pytest.approx(other[0].score)
        assert one[0].token_log_probs == pytest.approx(other[0].token_log_probs)
