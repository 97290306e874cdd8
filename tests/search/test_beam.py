"""Beam search against brute force, greedy search and tables computed by hand."""

import math

import pytest
from search_models import HistoryModel, brute_force, random_model, table_model

from seq2seq.search import SearchOptions
from seq2seq.sequences import EOS_ID

A, B, C = 4, 5, 6
END = EOS_ID


@pytest.mark.parametrize("kind", ["power", "gnmt"])
@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.7, 1.0, 2.0])
def test_wide_beam_finds_what_brute_force_finds(kind, exponent) -> None:
    model = random_model(vocab=6)  # three free tokens: unknown, 4 and 5
    options = SearchOptions(
        beam_size=27, n_best=6, max_length=3, length_penalty=exponent, length_penalty_type=kind
    )
    for sentence, found in enumerate(model.search(options, sentences=range(4))):
        expected = brute_force(model, sentence, 6, options)[:6]
        assert [(item.tokens, item.is_finished) for item in found] == [
            (tokens, is_finished) for tokens, _, is_finished in expected
        ]
        assert [item.score for item in found] == pytest.approx([score for _, score, _ in expected])


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_token_log_probs_are_the_models_own(beam_size: int) -> None:
    model = random_model(vocab=11, end=1.0)
    options = SearchOptions(beam_size=beam_size, n_best=beam_size, max_length=6)
    for sentence, found in enumerate(model.search(options, sentences=range(5))):
        for hypothesis in found:
            forced = model.forced_log_probs(sentence, hypothesis)
            assert hypothesis.token_log_probs == pytest.approx(forced, abs=1e-5)
            assert hypothesis.score == pytest.approx(sum(forced) / len(forced), abs=1e-5)


def test_n_best_are_distinct_and_sorted() -> None:
    model = random_model(vocab=9, end=1.0)
    options = SearchOptions(beam_size=6, n_best=6, max_length=7)
    for found in model.search(options, sentences=range(7)):
        assert len(found) == 6
        assert len({(*item.tokens, item.is_finished) for item in found}) == 6
        assert [item.score for item in found] == sorted(
            (item.score for item in found), reverse=True
        )


# Greedy takes A (0.6) and then has to take something of 0.4 at best: 0.24. B and its end: 0.4.
GARDEN_PATH = {
    (): {A: 0.6, B: 0.4},
    (A,): {A: 0.3, B: 0.3, END: 0.4},
    (B,): {END: 1.0},
}


def test_beam_finds_what_greedy_misses() -> None:
    model = table_model(GARDEN_PATH)
    greedy = model.best(SearchOptions(beam_size=1, length_penalty=0))
    beam = model.best(SearchOptions(beam_size=2, length_penalty=0))
    assert (greedy.tokens, beam.tokens) == ([A], [B])
    assert math.exp(greedy.score) == pytest.approx(0.24)
    assert math.exp(beam.score) == pytest.approx(0.4)
    assert beam.token_log_probs == pytest.approx([math.log(0.4), 0.0], abs=1e-6)
    assert beam.is_finished


# Empty output: 0.3. A and end: 0.7 * 0.4 = 0.28. A, B and end: 0.7 * 0.6 * 0.65 = 0.273.
LENGTHS = {
    (): {A: 0.7, END: 0.3},
    (A,): {B: 0.6, END: 0.4},
    (A, B): {C: 0.35, END: 0.65},
}


@pytest.mark.parametrize(
    ("kind", "exponent", "tokens", "score"),
    [
        ("power", 0.0, [], math.log(0.3)),
        ("power", 0.1, [A, B], math.log(0.273) / 3**0.1),
        ("power", 2.0, [A, B, C], math.log(0.7 * 0.6 * 0.35) / 4**2),
        ("gnmt", 0.0, [], math.log(0.3)),
        ("gnmt", 0.5, [A, B], math.log(0.273) / (8 / 6) ** 0.5),
    ],
)
def test_length_penalty_by_hand(kind, exponent, tokens, score) -> None:
    options = SearchOptions(beam_size=4, length_penalty=exponent, length_penalty_type=kind)
    best = table_model(LENGTHS).best(options)
    assert best.tokens == tokens
    assert best.score == pytest.approx(score, rel=1e-5)


def test_end_counts_only_among_the_first_beam_size() -> None:
    # The end is third of the first step's candidates: too low for a beam of 2, not for one of 3.
    scattered = {A: 0.3, B: 0.3, C: 0.3, END: 0.1}
    model = table_model({(): {A: 0.5, B: 0.3, END: 0.2}, (A,): scattered, (B,): scattered})
    narrow = model.best(SearchOptions(beam_size=2, max_length=2, length_penalty=0))
    wide = model.best(SearchOptions(beam_size=3, max_length=2, length_penalty=0))
    assert (narrow.tokens, wide.tokens) == ([A, A], [])


def test_search_stops_when_nothing_can_win_any_more() -> None:
    table = {(): {END: 0.9, A: 0.1}, (A,): {A: 1.0}, (A, A): {A: 1.0}}
    model = table_model(table)
    options = SearchOptions(beam_size=4, length_penalty=0, max_length=50)
    assert model.best(options).tokens == []
    assert len(model.rows) == 1


def test_early_stopping_decides_whether_search_waits_for_a_longer_output() -> None:
    # After one step the empty output leads (-0.51), and A could only reach -0.60 at the next.
    table = {(): {END: 0.6, A: 0.3, B: 0.1}, (A,): {A: 1.0}, (A, A): {A: 1.0}}
    patient = SearchOptions(beam_size=3, max_length=9)
    best = table_model(table).best(patient)
    assert best.tokens == [A, A, A]
    assert best.score == pytest.approx(math.log(0.3) / 4)
    hurried = SearchOptions(beam_size=3, max_length=9, early_stopping=True)
    hasty = table_model(table).best(hurried)
    assert hasty.tokens == []
    assert hasty.score == pytest.approx(math.log(0.6))


def test_what_ends_takes_no_place_from_what_goes_on() -> None:
    # The end is the best of the first step; A and B must both go on in a beam of two.
    table = {(): {END: 0.4, A: 0.35, B: 0.25}, (A,): {1: 0.25, A: 0.25, B: 0.25, C: 0.25}}
    best = table_model(table).best(SearchOptions(beam_size=2))
    assert best.tokens == [B]


@pytest.mark.parametrize("beam_size", [1, 2, 4])
def test_ties_go_to_the_lower_token_and_the_lower_beam(beam_size: int) -> None:
    model = HistoryModel(lambda _sentence, _prefix: [0.0] * 90)
    options = SearchOptions(
        beam_size=beam_size, n_best=beam_size, max_length=2, banned_tokens=[1, EOS_ID]
    )
    [found] = model.search(options)
    assert [item.tokens for item in found] == [[4, 4], [4, 5], [4, 6], [4, 7]][:beam_size]


@pytest.mark.parametrize("beam_size", [1, 3])
def test_at_the_limit_outputs_are_cut(beam_size: int) -> None:
    model = table_model({(): {A: 0.7, B: 0.2, END: 0.1}})
    [found] = model.search(SearchOptions(beam_size=beam_size, n_best=beam_size, max_length=1))
    expected = [([A], False, 0.7), ([B], False, 0.2), ([], True, 0.1)][:beam_size]
    assert [(item.tokens, item.is_finished) for item in found] == [item[:2] for item in expected]
    for item, (_, _, probability) in zip(found, expected, strict=True):
        assert item.token_log_probs == pytest.approx([math.log(probability)])
        assert item.score == pytest.approx(math.log(probability))


def test_vocabulary_smaller_than_the_beam() -> None:
    model = random_model(vocab=5)
    options = SearchOptions(beam_size=40, n_best=40, max_length=2)
    [found] = model.search(options)
    # Two free tokens: one empty output, two of one token, four that are cut.
    assert len(found) == 7


def test_coverage_penalty_by_hand() -> None:
    # A sees both halves of the input, B one; the third position is padding.
    table = {(): {A: 0.4, B: 0.6}, (A,): {END: 1.0}, (B,): {END: 1.0}}

    def attention(_sentence: int, prefix: tuple[int, ...]) -> list[float]:
        return [0.25, 0.75, 0.0] if prefix == (B,) else [0.5, 0.5, 0.0]

    model = HistoryModel(table_model(table).scores, attention)
    plain = SearchOptions(beam_size=2, n_best=2, return_attention=True)
    covered = SearchOptions(beam_size=2, n_best=2, return_attention=True, coverage_penalty=1.0)
    assert [item.tokens for item in model.search(plain)[0]] == [[B], [A]]
    best, second = model.search(covered)[0]
    assert (best.tokens, second.tokens) == ([A], [B])
    assert best.score == pytest.approx(math.log(0.4) / 2)
    assert second.score == pytest.approx(math.log(0.6) / 2 + math.log(0.75))
    assert second.attention is not None
    assert second.attention.tolist() == [[0.5, 0.5, 0.0], [0.25, 0.75, 0.0]]
    assert model.best(SearchOptions(beam_size=1, coverage_penalty=1.0)).score == (
        pytest.approx(second.score)
    )


def test_attention_follows_its_hypothesis() -> None:
    def attention(sentence: int, prefix: tuple[int, ...]) -> list[float]:
        return [float(sentence), float(len(prefix)), float(sum(prefix))]

    model = HistoryModel(random_model(vocab=8, end=0.5).scores, attention)
    options = SearchOptions(beam_size=4, n_best=4, max_length=5, return_attention=True)
    for sentence, found in enumerate(model.search(options, sentences=range(3))):
        for item in found:
            read = [item.tokens[:length] for length in range(len(item.token_log_probs))]
            assert item.attention is not None
            assert item.attention.tolist() == [[sentence, len(part), sum(part)] for part in read]


def test_attention_only_when_asked_for() -> None:
    model = HistoryModel(random_model(vocab=8).scores, lambda _sentence, _prefix: [0.5, 0.5])
    for options in (SearchOptions(max_length=3), SearchOptions(max_length=3, beam_size=1)):
        assert model.best(options).attention is None
