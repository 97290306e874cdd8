"""Corpus scores: those of sacrebleu, whatever the order, the repetitions and the processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from torch.multiprocessing.spawn import spawn

from seq2seq.errors import ConfigError, DataError
from seq2seq.metrics import CorpusTextMetric, TextScores

HYPOTHESES = [
    "A dog runs over the green meadow .",
    "two men play chess in a park, quietly.",
    "a Child eats an apple",
    "the train leaves the station at noon",
    "",
]
REFERENCES = [
    ["A dog runs across the green meadow .", "The dog is running over a meadow ."],
    ["Two men play chess in a park, quietly."],
    ["a child eats an apple", "A child is eating an apple", "a Child eats an apple"],
    ["the train departs from the station at noon"],
    ["nobody is there"],
]
# The same references as sacrebleu wants them: one stream per reference, None where there is none.
STREAMS: list[list[Any]] = [
    [right[number] if number < len(right) else None for right in REFERENCES] for number in range(3)
]


def score(order: list[int], batch_size: int = 2, **options: bool | str) -> TextScores:
    metric = CorpusTextMetric(**options)  # type: ignore[arg-type]
    add(metric, order, batch_size)
    return metric.compute()


def add(metric: CorpusTextMetric, order: list[int], batch_size: int = 2) -> None:
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        metric.update(
            torch.tensor(batch), [HYPOTHESES[i] for i in batch], [REFERENCES[i] for i in batch]
        )


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenize", ["13a", "none", "char"])
def test_scores_are_those_of_sacrebleu(tokenize: str, lowercase: bool) -> None:
    bleu, chrf = BLEU(tokenize=tokenize, lowercase=lowercase), CHRF(lowercase=lowercase)
    scores = score([0, 1, 2, 3, 4], tokenize=tokenize, lowercase=lowercase)
    assert scores.bleu == bleu.corpus_score(HYPOTHESES, STREAMS).score
    assert scores.chrf == chrf.corpus_score(HYPOTHESES, STREAMS).score
    assert scores.bleu_signature == str(bleu.get_signature())
    assert scores.chrf_signature == str(chrf.get_signature())
    assert 0 < scores.bleu < 100
    assert 0 < scores.chrf < 100


def test_the_signature_tells_what_was_scored() -> None:
    scores = score([1, 3], tokenize="none", lowercase=True)
    assert scores.bleu_signature.startswith("nrefs:1|case:lc|eff:no|tok:none|smooth:exp|version:")
    assert "nrefs:var" in score([0, 1]).bleu_signature


@pytest.mark.parametrize(("lowercase", "expected"), [(False, 1 / 5), (True, 2 / 5)])
def test_exact_match_accepts_any_reference(lowercase: bool, expected: float) -> None:
    assert score([0, 1, 2, 3, 4], lowercase=lowercase).exact_match == expected


def test_order_and_batches_change_nothing() -> None:
    assert score([3, 0, 4, 2, 1], batch_size=3) == score([0, 1, 2, 3, 4], batch_size=5)


def test_a_repeated_example_counts_once() -> None:
    repeated = score([2, 0, 1, 2, 3, 4, 2, 0])
    assert repeated == score([0, 1, 2, 3, 4])
    assert repeated.examples == 5


def test_perfect_texts_score_the_maximum() -> None:
    metric = CorpusTextMetric()
    metric.update(torch.tensor([7, 3]), ["a b c d e", "f g h i"], [["a b c d e"], ["x", "f g h i"]])
    scores = metric.compute()
    assert (round(scores.bleu, 6), round(scores.chrf, 6), scores.exact_match) == (100, 100, 1)


def test_reset_forgets_the_texts() -> None:
    metric = CorpusTextMetric()
    add(metric, [2, 4])
    metric.reset()
    add(metric, [0, 1, 3])
    assert metric.compute() == score([0, 1, 3])


def test_an_empty_corpus_is_an_error_that_names_the_limits() -> None:
    with pytest.raises(DataError, match=r"no decoded text to score.*--trainer\.limit_val_batches"):
        CorpusTextMetric().compute()


def test_an_example_without_reference_is_named() -> None:
    with pytest.raises(DataError, match="Example 12 has no reference"):
        CorpusTextMetric().update(torch.tensor([4, 12]), ["a", "b"], [["a"], []])


def test_an_unknown_tokenisation_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"bleu_tokenize='14a' is no tokenisation of sacrebleu.*13a"
    ):
        CorpusTextMetric(tokenize="14a")


# Three ranks, uneven on purpose: one repeats examples of another, the last has none at all.
SHARES = [[0, 3, 2], [4, 1, 0, 3], []]


def score_one_share(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SHARES)
    )
    scores = score(SHARES[rank])
    torch.save(tuple(scores), folder / f"scores_{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_several_processes_score_what_one_does(tmp_path: Path) -> None:
    spawn(score_one_share, args=(tmp_path,), nprocs=len(SHARES))  # type: ignore[no-untyped-call]
    expected = score([0, 1, 2, 3, 4])
    for rank in range(len(SHARES)):
        assert TextScores(*torch.load(tmp_path / f"scores_{rank}.pt")) == expected
