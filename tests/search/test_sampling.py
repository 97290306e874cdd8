"""Sampling draws from the distribution it is told to, and reports the model's own."""

import math
from collections import Counter

import pytest
import torch
from search_models import HistoryModel, random_model, table_model

from seq2seq.search import SearchOptions
from seq2seq.search.sampling import draw
from seq2seq.sequences import EOS_ID

PROBABILITIES = [0.05, 0.4, 0.0, 0.15, 0.3, 0.1]


def support(options: SearchOptions) -> set[int]:
    """Return what is drawn from ``PROBABILITIES`` by numbers spread evenly from 0 to 1."""
    uniforms = torch.linspace(0, 1, 400, dtype=torch.float64).clamp(max=1 - 1e-12)
    scores = torch.tensor(PROBABILITIES).log().expand(400, -1)
    return set(draw(scores, uniforms, options).tolist())


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {0, 1, 3, 4, 5}),
        ({"top_k": 2}, {1, 4}),
        ({"top_k": 50}, {0, 1, 3, 4, 5}),
        ({"top_p": 0.4 - 1e-6}, {1}),
        ({"top_p": 0.6}, {1, 4}),
        ({"top_p": 0.75}, {1, 3, 4}),
        ({"min_p": 0.3}, {1, 3, 4}),
        ({"min_p": 1.0}, {1}),
        # Among three, 1 and 4 hold 0.7 / 0.85 = 0.82; with all, 0.7 and one more is needed.
        ({"top_k": 3, "top_p": 0.8}, {1, 4}),
        ({"top_p": 0.8}, {1, 3, 4}),
        # Squared and normalised, 1 alone holds 0.16 / 0.285 = 0.56.
        ({"temperature": 0.5, "top_p": 0.55}, {1}),
        ({"temperature": 1e-6}, {1}),
    ],
)
def test_what_may_be_drawn(options: dict[str, float], kept: set[int]) -> None:
    assert support(SearchOptions(method="sample", **options)) == kept


@pytest.mark.parametrize("options", [{}, {"top_k": 6}, {"temperature": 2.0}, {"top_p": 0.9}])
def test_draws_follow_the_probabilities(options: dict[str, float]) -> None:
    choices = SearchOptions(method="sample", n_best=3000, max_length=1, seed=4, **options)
    table = {(): {4: 0.5, 5: 0.3, 6: 0.15, EOS_ID: 0.05}}
    [found] = table_model(table).search(choices)
    counts = Counter(item.tokens[0] if item.tokens else EOS_ID for item in found)
    exponent = 1 / choices.temperature
    weights = {token: value**exponent for token, value in table[()].items()}
    if choices.top_p < 1:
        del weights[EOS_ID]
    total = sum(weights.values())
    expected = {token: 3000 * value / total for token, value in weights.items()}
    assert counts.keys() == expected.keys()
    statistic = sum((counts[token] - value) ** 2 / value for token, value in expected.items())
    assert statistic < 16.3  # chi-square with three degrees of freedom: exceeded once in 1000


@pytest.mark.parametrize("options", [{"top_k": 1}, {"temperature": 1e-9}, {"top_p": 1e-9}])
def test_without_freedom_sampling_is_greedy(options: dict[str, float]) -> None:
    model = random_model(vocab=70, end=2.0)
    greedy = model.search(SearchOptions(beam_size=1, max_length=7), range(6))
    sampled = model.search(SearchOptions(method="sample", max_length=7, **options), range(6))
    assert sampled == greedy


def test_draws_and_sentences_differ_and_a_seed_repeats() -> None:
    model = HistoryModel(lambda _sentence, _prefix: [0.0] * 50)  # the same for every sentence
    options = SearchOptions(method="sample", n_best=3, max_length=8, min_length=8)

    def draws(seed: int) -> list[tuple[int, ...]]:
        found = model.search(
            SearchOptions(method="sample", n_best=3, max_length=8, min_length=8, seed=seed),
            range(2),
        )
        return [tuple(item.tokens) for items in found for item in items]

    assert len(set(draws(options.seed))) == 6
    assert draws(1) == draws(1)
    assert not set(draws(1)) & set(draws(2))


def test_index_chooses_the_random_numbers() -> None:
    model = HistoryModel(lambda _sentence, _prefix: [0.0] * 50)
    options = SearchOptions(method="sample", max_length=8)
    one = model.search(options, [0, 0], indices=torch.tensor([7, 3]))
    other = model.search(options, [0, 0], indices=torch.tensor([3, 7]))
    assert one == other[::-1]
    assert one != other


def test_scores_are_untempered_and_sorted() -> None:
    model = random_model(vocab=9, end=1.0)
    options = SearchOptions(method="sample", n_best=5, max_length=6, temperature=0.6, top_p=0.9)
    for sentence, found in enumerate(model.search(options, range(4))):
        assert len(found) == 5
        assert [item.score for item in found] == sorted(
            (item.score for item in found), reverse=True
        )
        for item in found:
            forced = model.forced_log_probs(sentence, item)
            assert item.token_log_probs == pytest.approx(forced, abs=1e-5)
            assert item.score == pytest.approx(math.fsum(forced) / len(forced), abs=1e-5)
