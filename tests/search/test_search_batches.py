"""What a sentence gets is its own affair; what a batch costs falls as sentences end."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from search_models import HistoryModel, random_model

from seq2seq.search import Hypothesis, SearchError, SearchOptions, beam, greedy
from seq2seq.sequences import EOS_ID

METHODS = {
    "greedy": SearchOptions(beam_size=1, max_length=6),
    "beam": SearchOptions(beam_size=3, n_best=2, max_length=6),
    "sample": SearchOptions(method="sample", n_best=2, max_length=6),
    "repetition": SearchOptions(beam_size=2, n_best=2, max_length=6, no_repeat_ngram=1),
}
each_method = pytest.mark.parametrize("method", METHODS)


def assert_same(one: list[Hypothesis], other: list[Hypothesis]) -> None:
    assert [item.tokens for item in one] == [item.tokens for item in other]
    assert [item.score for item in one] == pytest.approx([item.score for item in other])


@each_method
@settings(max_examples=20)
@given(data=st.data())
def test_result_depends_on_no_other_sentence(method: str, data: st.DataObject) -> None:
    model = random_model(vocab=8, end=1.0)
    numbers = data.draw(st.lists(st.integers(0, 11), min_size=1, max_size=7))
    limits = torch.tensor([number % 6 + 1 for number in numbers])
    prefixes = [[4] * (number % 3) for number in numbers]
    together = model.search(
        METHODS[method],
        numbers,
        max_lengths=limits,
        prefixes=prefixes,
        indices=torch.tensor(numbers),
    )
    for row, number in enumerate(numbers):
        [alone] = model.search(
            METHODS[method],
            [number],
            max_lengths=limits[row : row + 1],
            prefixes=prefixes[row : row + 1],
            indices=torch.tensor([number]),
        )
        assert_same(together[row], alone)


def ends_after(lengths: list[int]) -> HistoryModel:
    """Return a model that surely ends each sentence after that many tokens."""

    def scores(sentence: int, prefix: tuple[int, ...]) -> list[float]:
        values = [0.0, 0.0, 0.0, -40.0, 20.0, 10.0]
        if len(prefix) >= lengths[sentence]:
            values[EOS_ID] = 60.0
        return values

    return HistoryModel(scores)


@pytest.mark.parametrize(
    ("method", "rows"),
    [
        ("greedy", [4, 3, 2, 2, 1]),
        # One row each at first; hopeless beams do not keep a sentence in the batch.
        ("beam", [4, 9, 6, 6, 3]),
        ("sample", [4, 3, 2, 2, 1]),
    ],
)
def test_rows_leave_with_their_sentence(method: str, rows: list[int]) -> None:
    model = ends_after([1, 0, 3, 4])
    found = model.search(replace(METHODS[method], n_best=1), range(4))
    assert [len(best.tokens) for best, *_ in found] == [1, 0, 3, 4]
    assert model.rows == rows


@each_method
@pytest.mark.parametrize("end", [-1e4, 1e4, -math.inf])
def test_always_returns_a_hypothesis(method: str, end: float) -> None:
    model = random_model(vocab=8, end=end)
    for found in model.search(METHODS[method], range(3)):
        assert 1 <= len(found) <= METHODS[method].n_best
        best = found[0]
        # With every token used once, nothing but the end is left.
        longest = 5 if method == "repetition" else 6
        assert len(best.tokens) == (0 if end > 0 else longest)
        assert best.is_finished == (len(best.tokens) < 6)
        assert math.isfinite(best.score)


@pytest.mark.parametrize("method", ["beam", "sample"])
@pytest.mark.parametrize("beam_size", [1, 3])
def test_with_everything_banned_the_output_is_empty(method, beam_size: int) -> None:
    options = SearchOptions(
        method=method, beam_size=beam_size, min_length=2, banned_tokens=list(range(8))
    )
    model = random_model(vocab=8)
    best = model.best(options)
    assert (best.tokens, best.is_finished) == ([], True)
    assert best.token_log_probs == pytest.approx(model.forced_log_probs(0, best), abs=1e-5)


def test_no_sentences_give_no_results() -> None:
    assert random_model(vocab=8).search(METHODS["beam"], []) == []


@each_method
def test_scores_that_are_not_numbers_are_refused(method: str) -> None:
    scores = random_model(vocab=8, end=-1e4).scores

    def broken(sentence: int, prefix: tuple[int, ...]) -> list[float]:
        is_broken = sentence == 1 and len(prefix) == 2
        return [math.nan] * 8 if is_broken else list(scores(sentence, prefix))

    message = "at step 3, for . of 3 sentences" if method != "sample" else "at step 3, for . of 6"
    with pytest.raises(SearchError, match=message):
        HistoryModel(broken).search(METHODS[method], range(3))


@each_method
@pytest.mark.parametrize("row", [[math.inf, *[0.0] * 7], [-math.inf] * 8])
def test_scores_that_are_infinite_are_refused(method: str, row: list[float], monkeypatch) -> None:
    # As on a GPU, where the normaliser of such scores is infinite and not NaN.
    for module in (beam, greedy):
        monkeypatch.setattr(module, "log_normaliser", lambda scores: scores.logsumexp(dim=-1))
    scores = random_model(vocab=8, end=-1e4).scores

    def broken(sentence: int, prefix: tuple[int, ...]) -> list[float]:
        is_broken = sentence == 1 and len(prefix) == 2
        return row if is_broken else list(scores(sentence, prefix))

    with pytest.raises(SearchError, match=r"at step 3, for . of "):
        HistoryModel(broken).search(METHODS[method], range(3))


@each_method
def test_limits_hold_per_sentence(method: str) -> None:
    model = random_model(vocab=8, end=-1e4)
    found = model.search(METHODS[method], range(4), max_lengths=torch.tensor([3, 0, 99, 2]))
    lengths = [len(best.tokens) for best, *_ in found]
    assert lengths == [3, 1, 5 if method == "repetition" else 6, 2]
