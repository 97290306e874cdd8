"""Bans, lengths, repetition and prefixes restrict the choice, never the log-probabilities."""

import pytest
import torch
from search_models import HistoryModel, random_model

from seq2seq.errors import ConfigError
from seq2seq.search import Hypothesis, SearchOptions
from seq2seq.sequences import BOS_ID, EOS_ID, PAD_ID, UNK_ID

METHODS = {
    "greedy": {"beam_size": 1},
    "beam": {"beam_size": 3, "n_best": 3},
    "sample": {"method": "sample", "n_best": 4},
}
each_method = pytest.mark.parametrize("method", METHODS)


def outputs(model: HistoryModel, options: SearchOptions, **keywords: object) -> list[Hypothesis]:
    """Return all hypotheses of five sentences, and check their log-probabilities."""
    found = model.search(options, sentences=range(5), **keywords)
    for sentence, items in enumerate(found):
        for item in items:
            forced = model.forced_log_probs(sentence, item)
            assert item.token_log_probs == pytest.approx(forced, abs=1e-5)
    return [item for items in found for item in items]


@each_method
def test_padding_and_beginning_are_never_chosen(method: str) -> None:
    model = HistoryModel(lambda _sentence, prefix: [9.0, 1.0, 9.0, float(len(prefix)), 1.0])
    for item in outputs(model, SearchOptions(**METHODS[method])):
        assert not {PAD_ID, BOS_ID, EOS_ID} & set(item.tokens)


@each_method
def test_banned_tokens_are_never_chosen(method: str) -> None:
    model = random_model(vocab=9)
    allowed = SearchOptions(**METHODS[method], max_length=8)
    banned = SearchOptions(**METHODS[method], max_length=8, banned_tokens=[UNK_ID, 7])
    assert any({UNK_ID, 7} & set(item.tokens) for item in outputs(model, allowed))
    assert not any({UNK_ID, 7} & set(item.tokens) for item in outputs(model, banned))


@each_method
def test_outputs_are_not_shorter_than_the_minimum(method: str) -> None:
    model = random_model(vocab=9, end=6.0)
    plain = outputs(model, SearchOptions(**METHODS[method], max_length=8))
    longer = outputs(model, SearchOptions(**METHODS[method], max_length=8, min_length=3))
    assert min(len(item.tokens) for item in plain) == 0
    assert min(len(item.tokens) for item in longer) == 3


@each_method
def test_a_limit_leaves_room_for_the_minimum_and_the_end(method: str) -> None:
    model = random_model(vocab=9, end=9.0)
    limits = torch.tensor([1, 3, 4, 6, 9])
    options = SearchOptions(**METHODS[method], max_length=7, min_length=4)
    found = model.search(options, range(5), max_lengths=limits)
    for items, limit in zip(found, [5, 5, 5, 6, 7], strict=True):
        assert (len(items[0].tokens), items[0].is_finished) == (4, True)
        for item in items:
            assert len(item.tokens) in (range(4, limit) if item.is_finished else [limit])
    # Without that room the options' own limit cuts.
    narrow = SearchOptions(**METHODS[method], max_length=4, min_length=4)
    for item in outputs(model, narrow, max_lengths=limits):
        assert (len(item.tokens), item.is_finished) == (4, False)


@each_method
@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_ngram_occurs_twice(method: str, size: int) -> None:
    # The next token hardly depends on what came before, so without the rule all repeat.
    model = HistoryModel(lambda sentence, _prefix: [0, 0, 0, -9, 3, 2 + sentence / 10, 0])
    options = SearchOptions(**METHODS[method], max_length=9, no_repeat_ngram=size)
    for item in outputs(model, options):
        ngrams = list(zip(*(item.tokens[start:] for start in range(size)), strict=False))
        assert len(ngrams) == len(set(ngrams))


def test_no_repeat_bigram_by_hand() -> None:
    # Always 4, then 5, then 6: 4 4 may come once, so the third is 5; then 4 4 is used up again.
    model = HistoryModel(lambda _sentence, _prefix: [-9, -9, -9, -9, 3, 2, 1])
    options = SearchOptions(beam_size=1, max_length=6, no_repeat_ngram=2)
    assert model.best(options).tokens == [4, 4, 5, 4, 6, 4]


@each_method
def test_outputs_begin_with_their_prefix(method: str) -> None:
    model = random_model(vocab=9, end=3.0)
    prefixes = [[4, 4, 4], [], [8], [UNK_ID, 5], [6, 6, 6, 6]]
    options = SearchOptions(**METHODS[method], max_length=7, no_repeat_ngram=1, banned_tokens=[8])
    found = outputs(model, options, prefixes=prefixes)
    each = len(found) // len(prefixes)
    for number, item in enumerate(found):
        prefix = prefixes[number // each]
        assert item.tokens[: len(prefix)] == prefix
    assert any(
        len(item.tokens) > len(prefixes[number // each]) for number, item in enumerate(found)
    )


def test_common_prefix_is_followed_once_per_sentence() -> None:
    model = random_model(vocab=9, end=-9.0)
    options = SearchOptions(beam_size=3, max_length=4)
    model.search(options, range(2), prefixes=[[4, 5], [6, 7, 8]])
    assert model.rows == [2, 2, 2, 6]


@each_method
def test_prefix_may_end_the_output_and_the_limit_cuts_it(method: str) -> None:
    model = random_model(vocab=9)
    options = SearchOptions(**METHODS[method], max_length=3)
    prefixes = [[4, EOS_ID], [5, 6, 7, 8], [EOS_ID], [4, 4], [5]]
    found = model.search(options, range(5), prefixes=prefixes)
    best = [items[0] for items in found]
    assert (best[0].tokens, best[0].is_finished) == ([4], True)
    assert (best[1].tokens, best[1].is_finished) == ([5, 6, 7], False)
    assert (best[2].tokens, best[2].is_finished) == ([], True)


@each_method
def test_ids_outside_the_vocabulary_are_refused(method: str) -> None:
    model = random_model(vocab=9)
    with pytest.raises(ConfigError, match=r"banned_tokens has \[9, 12\].*ends at 8"):
        model.best(SearchOptions(**METHODS[method], banned_tokens=[5, 9, 12]))
    with pytest.raises(ConfigError, match=r"prefix has id 10.*ends at 8"):
        model.best(SearchOptions(**METHODS[method]), prefixes=[[4, 10]])


@each_method
def test_coverage_needs_attention(method: str) -> None:
    with pytest.raises(ConfigError, match=r"coverage_penalty=0\.2 needs a decoder with attention"):
        random_model(vocab=9).best(SearchOptions(**METHODS[method], coverage_penalty=0.2))
